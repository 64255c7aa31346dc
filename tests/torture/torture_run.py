"""Runs of a few steps in forked children that may die, and the hash they must all end in."""

import contextlib
import hashlib
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path

import pytest
import torch

import assay.cli
from assay.config import RunConfig
from assay.runs.run import Run
from assay.schema import override
from assay.train.checkpoint import checkpoints
from caches import cache_in

TEXT = "\n".join(f"{n} và {n + 1} là {2 * n + 1}, été 😀." for n in range(40)) + "\n"
EVERY = 3  # steps between checkpoints
FIELDS = {
    "model.max_seq_len": 16,
    "model.d_model": 16,
    "model.n_layers": 1,
    "data.tokenizer": "char",
    "train.batch_size": 4,
    "train.log_every": 1,
    "train.checkpoint_every": EVERY,
    "train.device": "cpu",
    "eval.every": 3,
}


@pytest.fixture
def text(tmp_path, monkeypatch):
    """A text, a cache beside it, and what takes time and adds nothing here cut short."""
    if not hasattr(os, "fork"):
        pytest.skip("kills forked children")
    monkeypatch.setenv("ASSAY_CACHE", cache_in(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("assay.engine.device._TIMED_S", 1e-9)
    monkeypatch.setattr("assay.runs.run._SAMPLE_TOKENS", 24)
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def config_of(text, **changes):
    """`changes` has `__` where a dotted field has a dot."""
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    return override(RunConfig(), {**FIELDS, "data.text": str(text), **changed})


def arguments_of(text, **changes):
    """Return the same as arguments of `assay train`."""
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    return [str(text), *(f"{name}={value}" for name, value in (FIELDS | changed).items())]


def is_run(path):
    """Whether there is something to resume; a run killed while it was made is none."""
    return (path / "config.json").is_file()


def is_finished(run):
    manifest = run.folder.read_manifest()
    return manifest["status"] == "finished" and "result" in manifest


def finish(run):
    """Train to the end what is not finished yet; return the steps reported."""
    return [] if is_finished(run) else [report.step for report in run.train()]


def hash_of(path):
    """Return one SHA-256 over the weights, the optimizer and the metrics of a finished run."""
    newest = checkpoints(path / "checkpoints")[0]
    parts = (newest / "model.safetensors", newest / "optim.safetensors", path / "metrics.jsonl")
    digest = hashlib.sha256(newest.name.encode())
    for part in parts:
        digest.update(hashlib.sha256(part.read_bytes()).digest())
    return digest.hexdigest()


def unbroken(config, path):
    """Return the hash of the run that nothing happened to."""
    finish(Run.create(config, path))
    return hash_of(path)


def start(work, said: Path):
    """Run `work` in a forked child in a process group of its own, its words in `said`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside the threads of a library
        child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        status = 1
        try:
            _speak_into(said)
            status = _status_of(work)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(child, child)  # whichever of the two comes first
    return child


def ended(child):
    """Wait for a child; return minus the signal, or the status."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def command(arguments):
    """Do what `python -m assay` does with these arguments, in this process."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.resetwarnings()
    warnings.simplefilter("ignore", DeprecationWarning)
    torch.set_num_threads(1)
    sys.argv = ["assay", *map(str, arguments)]
    try:
        assay.cli.main()
    finally:  # what follows is the tests' own
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


def _speak_into(said):
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(descriptor, number)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)


def _status_of(work):
    """Return the status the interpreter would end with."""
    try:
        work()
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
