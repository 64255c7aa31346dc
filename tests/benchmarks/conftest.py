import sys
from pathlib import Path

import pytest

# Benchmarks are scripts: their folder is on the path when one is run.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture
def results(monkeypatch, tmp_path):
    """The module of results, with an empty folder."""
    import results

    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    return results
