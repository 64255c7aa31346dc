"""A whole run traced to its last write and fsync, and gone on with after a power cut anywhere."""

import collections
import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from disk_tap import Operation, tap
from naive_writer import write_naively
from power_cut import VARIANTS, Disk, as_line, build, from_line, name_of
from torture_run import config_of, ended, finish, hash_of, is_run, start, text, unbroken

from assay.errors import RunError
from assay.runs.metrics import Metrics
from assay.runs.run import Run

__all__ = ["text"]  # the fixture
STEPS, STOP = 8, 5
RANDOM_STATES = 4  # of each prefix, beside the variants with a name


def told(run, see, **options):
    """Train, and mark each checkpoint that the user was told of."""
    for report in run.train(**options):
        if report.checkpoint is not None:
            see(Operation("mark", "saved", at=report.step))


def traced_run(folder, config, see):
    """Make a run, stop it half way, go on to its end."""
    run = Run.create(config, folder / "runs" / "run")
    asked = iter(range(1, STEPS))
    told(run, see, stop=lambda: next(asked) == STOP)
    told(Run.open(folder / "runs" / "run"), see)


def trace_of(folder, config, *, prepare=lambda: None):
    """Return every change on the disk of such a run, and its hash."""
    folder.mkdir()
    path = folder.with_name("trace")
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def see(operation):
        if operation.kind not in ("open", "scan"):
            os.write(file, as_line(operation).encode())

    def work():
        prepare()
        tap(folder, see)
        traced_run(folder, config, see)

    said = folder.with_name("said")
    assert ended(start(work, said)) == 0, said.read_text()
    os.close(file)
    trace = []
    for operation in map(from_line, path.read_text().splitlines()):
        if operation.kind == "failed":
            trace.pop()
        else:
            trace.append(operation)
    return trace, hash_of(folder / "runs" / "run")


@dataclass
class Cut:
    """One state that the disk may be in after a cut.

    Attributes:
        state: Its files and folders.
        saved: The last step the user was told is saved.
        when: The operation before the cut, and what was lost.
    """

    state: dict
    saved: int
    when: str


def cuts_of(trace, chance):
    """Return the distinct states after every prefix of a trace."""
    disk, saved, found = Disk(), 0, {}
    for number, operation in enumerate(trace, 1):
        if operation.kind == "mark":
            saved = operation.at
        else:
            disk.take(operation)
        for variant in (*VARIANTS, *map(str, range(RANDOM_STATES))):
            state = disk.left(variant, chance)
            when = f"cut after operation {number} of {len(trace)} ({operation}), {variant}"
            found[name_of(state), saved] = Cut(state, saved, when)
    return list(found.values())


def go_on(folder, saved):
    """Resume what a cut left; write the hash of its end, or raise."""
    path = folder / "runs" / "run"
    if not is_run(path):
        assert not saved, f"the run is gone, and step {saved} was said to be saved"
        return
    steps = finish(Run.open(path))
    assert not steps or max(0, steps[0] - 1) >= saved, f"step {saved} was lost"
    (folder / "hash").write_text(hash_of(path))


def outcome(cut, folder, expected, prepare):
    """Return what is wrong with what came after a cut, or None."""
    shutil.rmtree(folder, ignore_errors=True)
    build(cut.state, folder)
    said = folder.with_name("said")

    def work():
        prepare()
        go_on(folder, cut.saved)

    if ended(start(work, said)):
        return f"{cut.when}: {said.read_text().splitlines()[-1]}"
    end = folder / "hash"
    if end.exists() and end.read_text() != expected:
        return f"{cut.when}: it ended in other bits"
    return None


def faults_of(cuts, folder, expected, *, prepare=lambda: None):
    found = (outcome(cut, folder, expected, prepare) for cut in cuts)
    found = [fault for fault in found if fault is not None]
    print(*found, sep="\n")
    return found


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_bits_after_a_power_cut_anywhere(tmp_path, text, load, record):
    """The hash of the traced run is that of one that was neither traced nor interrupted."""
    config = config_of(text, train__steps=STEPS)
    expected = unbroken(config, tmp_path / "whole")
    trace, end = trace_of(tmp_path / "disk", config)
    assert end == expected
    chance = random.Random(4)
    cuts = cuts_of(trace, chance)
    tried = load(chance.sample(cuts, 5), cuts)
    faults = faults_of(tried, tmp_path / "cut", expected)
    kinds = collections.Counter(operation.kind for operation in trace)
    record(
        "power-cut",
        f"{len(tried)} distinct states of the disk after {len(trace)} prefixes of a trace with "
        f"{kinds['write']} writes, {kinds['fsync']} fsyncs, {kinds['rename']} renames",
        f"{len(faults)} could not go on to the same bits from the last checkpoint told of",
    )
    assert len(cuts) > 200
    assert faults == []


@pytest.mark.slow
def test_without_its_fsyncs_the_same_run_does_not_survive(tmp_path, text, load, record):
    """The positive control: the replay sees what an fsync is good for."""
    config = config_of(text, train__steps=STEPS)
    expected = unbroken(config, tmp_path / "whole")
    trace, _ = trace_of(tmp_path / "disk", config)
    without = [operation for operation in trace if operation.kind != "fsync"]
    chance = random.Random(4)
    cuts = cuts_of(without, chance)
    tried = load(cuts[-2:], chance.sample(cuts, min(len(cuts), 200)))
    faults = faults_of(tried, tmp_path / "cut", expected)
    record(
        "power-cut-without-fsync",
        f"{len(tried)} of {len(cuts)} states of the same trace without its fsyncs",
        f"{len(faults)} could not go on to the same bits",
    )
    assert faults


@pytest.mark.slow
def test_a_naive_writer_does_not_survive_a_power_cut(tmp_path, text, load, record):
    config = config_of(text, train__steps=STEPS)
    finish(Run.create(config, tmp_path / "warm"))
    trace, expected = trace_of(tmp_path / "disk", config, prepare=write_naively)
    chance = random.Random(4)
    cuts = [cut for cut in cuts_of(trace, chance) if cut.saved]
    tried = load(cuts[:2], chance.sample(cuts, min(len(cuts), 200)))
    faults = faults_of(tried, tmp_path / "cut", expected, prepare=write_naively)
    record(
        "power-cut-naive",
        f"{len(tried)} of {len(cuts)} states after its first checkpoint",
        f"{len(faults)} could not go on to the same bits",
    )
    assert faults


def test_the_disk_forgets_what_was_not_flushed_and_keeps_what_was():
    disk = Disk()
    for operation in (
        Operation("create", "new.tmp"),
        Operation("write", "new.tmp", data=b"ab"),
        Operation("fsync", "new.tmp"),
        Operation("write", "new.tmp", data=b"cd", at=2),
        Operation("rename", "new.tmp", to="new"),
    ):
        disk.take(operation)
    chance = random.Random(0)
    assert disk.left("lost", chance) == {}
    assert disk.left("kept", chance) == {"new": b"abcd"}
    assert disk.left("zeros", chance) == {"new": b"ab\0\0"}
    assert disk.left("names alone", chance) == {"new": b"ab"}
    seen = {name_of(disk.left("any", chance)): disk.left("any", chance) for _ in range(200)}
    assert {frozenset(state) for state in seen.values()} <= {
        frozenset(), frozenset({"new"}), frozenset({"new.tmp"}),
    }  # fmt: skip
    disk.take(Operation("fsync", ""))
    assert disk.left("lost", chance) == {"new": b"ab"}


def rows(*steps):
    return "".join(json.dumps({"step": step}) + "\n" for step in steps)


@pytest.mark.parametrize("lost", ["", "\0" * 30, "\0" * 30 + "\n", '{"st\n', rows(5)[:-3]])
def test_what_a_power_cut_leaves_of_later_rows_goes_with_them(tmp_path, lost):
    path = tmp_path / "metrics.jsonl"
    path.write_text(rows(0, 1, 2, 3, 4) + lost + rows(6, 7))
    metrics = Metrics(tmp_path, after_step=3)
    metrics.write({"step": 4})
    metrics.close()
    assert path.read_text() == rows(0, 1, 2, 3, 4)


def test_a_row_damaged_among_those_that_were_flushed_is_an_error_that_names_it(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(rows(0, 1) + "\0\0\0\n" + rows(3, 4))
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 3: not a row"):
        Metrics(tmp_path, after_step=3)


NAMES = ("rename", "mkdir", "unlink", "rmdir")
CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (\d+)")
QUOTED = re.compile(r'(?:<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')


def seen_by_strace(log, folder):
    """Return the changes of names and the fsyncs in order, and the bytes written to each file."""
    order, written = [], collections.Counter()
    for kind, inside, result in (m.groups() for m in map(CALL.match, log) if m):
        paths = [os.path.join(at, name) for at, name in QUOTED.findall(inside)]
        opened = re.match(r"\d+<([^>]*)>", inside)
        if kind in ("write", "pwrite64"):
            written[short(opened[1], folder)] += int(result)
        elif kind == "fsync":
            order.append(("fsync", short(opened[1], folder)))
        elif result == "0" and kind[:5] in ("renam", "mkdir", "unlin", "rmdir"):
            named = "rmdir" if "AT_REMOVEDIR" in inside else kind.removesuffix("2")
            order.append((named.removesuffix("at"), *(short(path, folder) for path in paths)))
    del written[None]
    return [each for each in order if None not in each], written


def short(path, folder):
    """Return a path under the folder, random names made equal; None for one elsewhere."""
    if path != str(folder) and not path.startswith(f"{folder}/"):
        return None
    path = re.sub(r"\.\d+\.(tmp|new)\b", r".PID.\1", path)
    return re.sub(r"/\.tmp[^/]*$", "/.tmp", path.removeprefix(str(folder)).lstrip("/"))


@pytest.mark.slow
def test_the_trace_is_what_strace_sees_of_a_process_that_is_not_traced(
    tmp_path, text, load, record
):
    """The independent oracle of everything above: the calls of the real safetensors, in order."""
    if load(True, False) or shutil.which("strace") is None:
        pytest.skip("takes ten seconds and strace; run with --torture where strace is")
    log, disk = tmp_path / "calls", tmp_path / "real"
    disk.mkdir()
    script = (
        "import sys; from pathlib import Path; from torture_run import config_of; "
        "from test_torture_power_cut import STEPS, traced_run; "
        "traced_run(Path(sys.argv[1]), config_of(sys.argv[2], train__steps=STEPS), lambda _: None)"
    )
    calls = "rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,fsync,write,pwrite64"
    line = ["strace", "-f", "-qq", "-y", "-e", f"trace={calls}", "-o", log]
    line += [sys.executable, "-c", script, disk, text]
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    done = subprocess.run(line, env=os.environ | {"PYTHONPATH": path}, capture_output=True)
    if "ptrace" in done.stderr.decode():
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr.decode()[-500:]
    order, written = seen_by_strace(log.read_text(errors="replace").splitlines(), disk)
    config = config_of(text, train__steps=STEPS)
    finish(Run.create(config, tmp_path / "warm"))
    trace, _ = trace_of(tmp_path / "disk", config)
    tapped = []
    for operation in trace:
        paths = (operation.path, operation.to) if operation.to else (operation.path,)
        if operation.kind in (*NAMES, "fsync"):
            tapped.append((operation.kind, *(short(f"/{path}", "") for path in paths)))
    sums = collections.Counter()
    for operation in trace:
        sums[short(f"/{operation.path}", "")] += len(operation.data)
    record(
        "power-cut-strace",
        f"{len(order)} fsyncs and changes of names, {sum(written.values())} bytes in "
        f"{len(written)} files, of the same run under strace",
        "the same calls in the same order, and as many bytes in each file",
    )
    assert [each for each in order if ".lock" not in each[1]] == [
        each for each in tapped if ".lock" not in each[1]
    ]
    exact = [name for name in written if name.endswith(("/.tmp", "metrics.jsonl"))]
    assert len(exact) >= 2  # the rest holds times
    assert {name: written[name] for name in exact} == {name: sums[name] for name in exact}
