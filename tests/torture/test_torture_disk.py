"""A disk that is full, over quota, read-only or broken, at every operation of a run."""

import collections
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
from dataclasses import dataclass

import pytest
from disk_tap import CHANGES, tap
from torture_run import (
    arguments_of,
    command,
    config_of,
    ended,
    hash_of,
    is_finished,
    is_run,
    start,
    text,
    unbroken,
)

from assay.errors import CheckpointError
from assay.runs.run import Run
from assay.train.checkpoint import checkpoints, verify_checkpoint

__all__ = ["text"]  # the fixture
STEPS = 6
LEAST = 2000  # bytes in which a command can say what is wrong
SAMPLE = f"samples/step-{STEPS:06d}.txt"
FULL = ("create", "write", "truncate", "rename", "mkdir", "fsync")  # what takes room, or reports it
CODES = {  # what each kind of fault stops
    errno.EIO: (*CHANGES, "open", "scan"),
    errno.EROFS: CHANGES,
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
}


def failing_from(point, code, *, last):
    """Return a `see` that counts, and from operation `point` to `last` raises what it can."""
    count = 0

    def see(operation):
        nonlocal count
        if operation.kind in ("failed", "mark"):
            return
        count += 1
        if point <= count <= last and operation.kind in CODES[code]:
            raise OSError(code, os.strerror(code), operation.path)

    return see


def operations_of(folder, arguments):
    """Return the operations under `folder` of an undisturbed command."""
    found = []
    log = folder.with_name("operations")

    def work():
        tap(folder, lambda operation: found.append(operation.kind))
        try:
            command(arguments)
        finally:
            log.write_text(json.dumps([kind for kind in found if kind != "failed"]))

    said = folder.with_name("said")
    assert ended(start(work, said)) == 0, said.read_text()
    return json.loads(log.read_text())


def complaint(words, status):
    """Return what is wrong with how a command that met a fault ended, or None."""
    lines = [line for line in words.splitlines() if line.startswith("assay: ")]
    if "Traceback" in words or "Warning" in words:
        return f"a traceback or warning: {words[-300:]}"
    if (status, len(lines)) not in ((0, 0), (1, 1)):
        return f"status {status} with {len(lines)} sentences: {words[-300:]}"
    return None


@dataclass
class Whole:
    """The run that nothing happened to: its hash and what it wrote."""

    hash: str
    sample: bytes
    bytes_by_file: list


@pytest.fixture
def whole(tmp_path, text):
    path = tmp_path / "whole"
    expected = unbroken(config_of(text, train__steps=STEPS), path)
    sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    return Whole(expected, (path / SAMPLE).read_bytes(), sizes)


def torn(path, whole):
    """Return the first file under its final name that is not whole, or None."""
    for folder in checkpoints(path / "checkpoints"):
        try:
            verify_checkpoint(folder)
        except CheckpointError as error:
            return str(error)
    checks = {
        "config.json": is_json,
        "manifest.json": is_json,
        "curve.png": lambda content: content.endswith(b"IEND\xaeB`\x82"),
        SAMPLE: lambda content: content == whole.sample,
    }
    for name, is_whole in checks.items():
        if (path / name).exists() and not is_whole((path / name).read_bytes()):
            return f"{name} is torn"
    return None


def is_json(content):
    try:
        return isinstance(json.loads(content), dict)
    except ValueError:
        return False


def train_arguments(path, text):
    arguments = arguments_of(text, train__steps=STEPS)
    return ["train", *arguments, "--name", path.name, "--runs", path.parent]


def gone_on_with(path, text, whole, said):
    """Go on where the fault is gone, as its user would; return what is wrong, or None."""
    if not is_run(path) and path.exists():
        return f"{path.name} holds the name and is no run"
    if not (is_run(path) and is_finished(Run.open(path))):
        arguments = ["resume", path] if is_run(path) else train_arguments(path, text)
        if ended(start(lambda: command(arguments), said)):
            return f"it could not go on: {said.read_text()[-300:]}"
    return None if hash_of(path) == whole.hash else "it ended in other bits"


def steps_saved(path):
    return [folder.name for folder in checkpoints(path / "checkpoints")]


def met(folder, text, whole, see):
    """Let one run meet a fault; return what is wrong with the end of it, or None."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path, said = folder / "runs" / "run", folder.with_name("said")

    def work():
        tap(folder, see)
        command(train_arguments(path, text))

    status = ended(start(work, said))
    wrong = complaint(said.read_text(), status) or torn(path, whole)
    return wrong or gone_on_with(path, text, whole, said)


@pytest.mark.slow
def test_a_fault_at_every_operation_is_one_sentence(
    tmp_path, text, whole, load, record, monkeypatch
):
    """Of preparing the text, making the run, training, saving and ending; then it goes on.

    An EIO comes once, of the others every one from there on.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setenv("ASSAY_CACHE", str(disk / "cache"))
    kinds = operations_of(disk, train_arguments(disk / "runs" / "run", text))
    chance = random.Random(4)
    faults = [
        (point, code, last)
        for code, stopped in CODES.items()
        for point, kind in enumerate(kinds, 1)
        if kind in stopped
        for last in ([10**9] if code != errno.EIO else [point])
    ]
    tried = load(chance.sample(faults, 4), faults)
    found = {}
    for point, code, last in tried:
        wrong = met(disk, text, whole, failing_from(point, code, last=last))
        if wrong is not None:
            where = f"{errno.errorcode[code]} at operation {point} ({kinds[point - 1]})"
            found[where] = wrong
            print(where, wrong)
    counts = collections.Counter(errno.errorcode[code] for _, code, _ in tried)
    record(
        "disk-faults",
        f"{len(tried)} faults over {len(kinds)} operations of a run: "
        + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())),
        f"{len(found)} without one sentence, with a torn file or other bits",
    )
    assert len(kinds) > 200
    assert found == {}


def limited_to(size):
    """Let no file grow over `size` bytes; writing on is an error, as Python has SIGXFSZ."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.slow
def test_a_limit_on_file_sizes_is_one_sentence(tmp_path, text, whole, load, record):
    """From what the words on stderr take to the largest file; safetensors meets it in Rust."""
    largest = max(whole.bytes_by_file)
    sizes = [LEAST + (largest - LEAST) * n // 40 for n in range(41)]
    tried = load(sizes[3:40:18], sizes)
    runs, found, refused = tmp_path / "runs", {}, 0
    for size in tried:
        shutil.rmtree(runs, ignore_errors=True)
        runs.mkdir()
        path, said = runs / "run", tmp_path / "said"

        def work(path=path, size=size):
            limited_to(size)
            command(train_arguments(path, text))

        status = ended(start(work, said))
        refused += status == 1
        wrong = complaint(said.read_text(), status) or torn(path, whole)
        wrong = wrong or gone_on_with(path, text, whole, said)
        if wrong is not None:
            found[size] = wrong
            print(size, wrong)
    record(
        "disk-file-size-limit",
        f"{len(tried)} limits from {LEAST} to {largest} bytes, {refused} of them met",
        f"{len(found)} without one sentence, with a torn file or other bits",
    )
    assert refused >= load(1, 10)
    assert found == {}


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts an empty disk of so many bytes; all are gone at the end."""
    place = tmp_path / "small"
    place.mkdir()

    def mount(size):
        subprocess.run(["umount", place], capture_output=True, check=False)
        asked = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place]
        if os.name != "posix" or subprocess.run(asked, capture_output=True, check=False).returncode:
            pytest.skip("mounts a small disk, which only root may do on Linux")
        return place

    yield mount
    subprocess.run(["umount", place], capture_output=True, check=False)


@pytest.mark.slow
def test_a_real_full_disk_is_one_sentence_and_room_lets_it_go_on(
    tmp_path, text, whole, load, record, small_disk
):
    """Disks from one page to what a run takes; then room is made, and the run resumed."""
    need = sum(-(-size // 4096) + 2 for size in whole.bytes_by_file)
    pages = load([need // 3], range(1, need + 8, 2))
    found, refused = {}, 0
    for size in (4096 * n for n in pages):
        place = small_disk(size)
        path, said = place / "runs" / "run", tmp_path / "said"
        status = ended(start(lambda: command(train_arguments(path, text)), said))  # noqa: B023
        refused += status == 1
        wrong = complaint(said.read_text(), status) or torn(path, whole)
        kept = steps_saved(path)
        subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
        if kept != steps_saved(path):
            wrong = wrong or "checkpoints changed"
        wrong = wrong or gone_on_with(path, text, whole, said)
        if wrong is not None:
            found[size] = wrong
            print(size, wrong)
    record(
        "disk-full-real",
        f"{len(pages)} disks of 1 to {need + 7} pages of 4 KiB, {refused} of them too small",
        f"{len(found)} without one sentence, with a torn file or other bits",
    )
    assert refused >= load(1, 10)
    assert found == {}


@pytest.mark.slow
def test_a_disk_that_turns_read_only_is_one_sentence(tmp_path, text, whole, record, small_disk):
    """A run that was stopped half way is resumed on a disk mounted read-only, then writable."""
    place = small_disk("64m")
    path, said = place / "runs" / "run", tmp_path / "said"
    asked = iter(range(1, STEPS))
    run = Run.create(config_of(text, train__steps=STEPS), path)
    assert list(run.train(stop=lambda: next(asked) == 4))[-1].checkpoint is not None
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    status = ended(start(lambda: command(["resume", path]), said))
    words = said.read_text()
    subprocess.run(["mount", "-o", "remount,rw", place], check=True)
    wrong = complaint(words, status) or torn(path, whole) or gone_on_with(path, text, whole, said)
    record("disk-read-only", "1 resume on a disk mounted read-only", wrong or "one sentence")
    assert (status, wrong) == (1, None)
