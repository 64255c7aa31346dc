import sys
from dataclasses import dataclass

import pytest
from small_run import SMALL, TEXT

from assay import plugin
from assay.cli import main
from assay.family import families
from caches import cache_in


@dataclass
class Result:
    status: int
    stdout: str
    stderr: str


@pytest.fixture(autouse=True)
def _plugins_are_forgotten(monkeypatch):
    """What a command loads is not known to the next test in this process."""
    monkeypatch.setattr(plugin, "_LOADED", {})
    before = {family: dict(family._variants) for family in families()}
    yield
    for family, variants in before.items():
        family._variants.clear()
        family._variants.update(variants)


@pytest.fixture
def assay(monkeypatch, capsys, tmp_path):
    """Run the command line in this process, in an empty folder with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASSAY_CACHE", cache_in(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["assay", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as exit_:
            status = exit_.code or 0
        out = capsys.readouterr()
        return Result(status, out.out, out.err)

    return run


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "cats.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def trained(assay, text):
    """A run named `cats`, trained for six steps."""
    assert assay("train", text, *SMALL, "--name", "cats").status == 0
    return "cats"
