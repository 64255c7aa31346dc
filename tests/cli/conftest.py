import sys
from dataclasses import dataclass

import pytest

from assay.cli import main

TEXT = "the cat sat on the mat; the dog lay on the log. " * 60
SMALL = (
    "data.tokenizer=char",
    "model.d_model=16",
    "model.n_layers=1",
    "model.mixer.n_heads=2",
    "model.max_seq_len=16",
    "train.batch_size=4",
    "train.steps=6",
    "train.log_every=1",
    "eval.every=3",
)


@dataclass
class Result:
    status: int
    stdout: str
    stderr: str


@pytest.fixture
def assay(monkeypatch, capsys, tmp_path):
    """Run the command line in this process, in an empty folder with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "cache"))
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
