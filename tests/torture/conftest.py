"""Torture: the same tests at a small load in every run, at the full one under `make torture`.

A test asks `load(quick, full)` how often to do its worst. At full load what it found is written to
`results/NAME.json`, from which `reliability_page.py` makes the table of docs/reliability.md.
"""

import json
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

RESULTS = Path(__file__).parent / "results"


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)
            if config.getoption("--torture"):
                item.add_marker(pytest.mark.timeout(4 * 3600))


@pytest.fixture
def load(request):
    """Choose the first of two loads, or under --torture the second."""
    full = request.config.getoption("--torture")
    return lambda quick, whole: whole if full else quick


@pytest.fixture
def record(request):
    """Write down the load and the figure of a row of docs/reliability.md, at full load only."""
    began = time.monotonic()

    def write(name, load, figure):
        print(f"{name}: {load}: {figure}")
        if not request.config.getoption("--torture"):
            return
        RESULTS.mkdir(exist_ok=True)
        place = request.node.nodeid.partition("[")[0]
        row = {
            "load": load,
            "figure": figure,
            "command": f"pytest {place} --torture",
            "seconds": round(time.monotonic() - began),
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "torch": torch.__version__,
            "platform": platform.platform(),
        }
        (RESULTS / f"{name}.json").write_text(json.dumps(row, indent=1, ensure_ascii=False) + "\n")

    return write
