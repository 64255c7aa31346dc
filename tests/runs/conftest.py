import os

import pytest
from tiny_run import TEXT

from caches import cache_in


@pytest.fixture(autouse=True)
def _own_cache_and_short_ends(tmp_path, monkeypatch):
    """Prepared texts stay in the test's folder; speed is timed once, and a sample is short."""
    monkeypatch.setenv("ASSAY_CACHE", cache_in(tmp_path))
    monkeypatch.setattr("assay.engine.device._TIMED_S", 1e-9)
    monkeypatch.setattr("assay.runs.run._SAMPLE_TOKENS", 24)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def forks():
    if not hasattr(os, "fork"):
        pytest.skip("kills a forked child")
