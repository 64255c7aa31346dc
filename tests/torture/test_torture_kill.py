"""A run killed with SIGKILL, at any time and at every point of its saves, until it ends."""

import collections
import os
import random
import re
import select
import shutil
import signal
import struct
import time

import pytest
from disk_tap import CHANGES, tap
from naive_writer import write_naively
from torture_run import EVERY, config_of, ended, finish, hash_of, is_finished, is_run, start, text

from assay.runs.run import Run

__all__ = ["text"]  # the fixture
STEPS = 24
SAVES = 5
CONFIGS = (
    {},
    {"train__optimizer": "muon", "model__dropout": 0.1},
    {"train__micro_batches": 2, "train__schedule": "cosine", "model__tie_embeddings": False},
)


class Life:
    """One process that makes or resumes a run, and how far it came.

    Attributes:
        steps: Those reported, in order; the first is where it began.
        status: Minus the signal that ended it, or its exit status.
        words: What it said.
    """

    def __init__(self, path, config, *, prepare=lambda: None, delay=None):
        """Live until the end or, with `delay`, for so many seconds at most."""
        heard, told = os.pipe()
        said = path.with_name(f"{path.name}.said")
        said.touch()  # which a child killed at once cannot
        child = start(lambda: live(path, config, told, prepare), said)
        os.close(told)
        if delay is not None:
            wait_for(child, delay)
            os.killpg(child, signal.SIGKILL)
        self.status = ended(child)
        with open(heard, "rb") as pipe:
            self.steps = [step for (step,) in struct.iter_unpack("i", pipe.read())]
        self.words = said.read_text()

    @property
    def killed(self):
        return self.status == -signal.SIGKILL


def wait_for(child, delay):
    """Wait until the child ends, or the delay is over."""
    descriptor = os.pidfd_open(child) if hasattr(os, "pidfd_open") else None
    if descriptor is None:
        time.sleep(delay)
        return
    select.select([descriptor], [], [], delay)
    os.close(descriptor)


def live(path, config, told, prepare):
    """Make the run, or go on with it, and tell each step as it is reported."""
    prepare()
    if not is_run(path):
        shutil.rmtree(path, ignore_errors=True)  # killed while it was made
        run = Run.create(config, path)
    else:
        run = Run.open(path)
    if is_finished(run):
        return
    for report in run.train():
        os.write(told, struct.pack("i", report.step))


class Tally:
    """What came of runs that were killed.

    Attributes:
        kills: Lives ended by SIGKILL.
        runs: Runs that were begun.
        stuck: Runs that could not go on, with what they said.
        other: Runs that ended in other bits.
        lost: For each kill, the steps reported before it that had to be taken again.
    """

    def __init__(self):
        self.kills, self.runs, self.stuck, self.other, self.lost = 0, 0, [], [], []

    def follow(self, path, expected, lives):
        """Follow one run through its lives to its end, or until it is stuck."""
        self.runs += 1
        reached = 0
        for life in lives:
            if life.steps:
                self.lost.append(reached - max(0, life.steps[0] - 1))
                reached = life.steps[-1]
            self.kills += life.killed
            if not life.killed and life.status:
                self.stuck.append(life.words)
                return
            if not life.killed:
                break
        if hash_of(path) != expected:
            self.other.append(path.name)

    def bad(self):
        return len(self.stuck) + len(self.other)


def whole(config, path, prepare=lambda: None):
    """Return the hash and the seconds of an unbroken run in a process of its own."""
    began = time.monotonic()
    life = Life(path, config, prepare=prepare)
    seconds = time.monotonic() - began
    assert life.status == 0, life.words
    assert life.steps == list(range(STEPS + 1))
    return hash_of(path), seconds


def killed_at_random(config, folder, kills, *, prepare=lambda: None):
    """Kill run after run at random times until there were so many kills."""
    finish(Run.create(config, folder / "warm"))  # what is imported and timed once
    expected, seconds = whole(config, folder / "whole", prepare)
    chance, tally = random.Random(4), Tally()

    def lives(path):
        while True:
            killable = tally.kills < kills
            delay = chance.uniform(0, seconds) if killable else None
            yield Life(path, config, prepare=prepare, delay=delay)

    while tally.kills < kills:
        path = folder / f"run-{tally.runs}"
        tally.follow(path, expected, lives(path))
        shutil.rmtree(path)
    return tally


@pytest.mark.slow
def test_runs_killed_at_random_times_end_in_the_same_bits(tmp_path, text, load, record):
    configs, tallies = load(CONFIGS[:1], CONFIGS), []
    total = load(6, 501)
    for number, changes in enumerate(configs):
        folder = tmp_path / f"config-{number}"
        folder.mkdir()
        config = config_of(text, train__steps=STEPS, **changes)
        tallies.append(killed_at_random(config, folder, total // len(configs)))
    kills, runs = (sum(getattr(tally, name) for tally in tallies) for name in ("kills", "runs"))
    lost = max(steps for tally in tallies for steps in tally.lost)
    record(
        "kill-random",
        f"{kills} kills at random times in {runs} runs of {STEPS} steps, {len(configs)} configs",
        f"{sum(len(t.stuck) for t in tallies)} unable to resume, "
        f"{sum(len(t.other) for t in tallies)} in other bits, "
        f"at most {lost} reported steps lost of an interval of {EVERY}",
    )
    assert kills == total
    assert [words for tally in tallies for words in tally.stuck] == []
    assert [name for tally in tallies for name in tally.other] == []
    assert 0 < lost <= EVERY or total < 20


@pytest.mark.slow
def test_a_naive_writer_killed_at_random_times_fails(tmp_path, text, load, record):
    """The positive control; at the quick load it is killed where that is sure, below."""
    if load(True, False):
        pytest.skip("few random kills need not hit a naive writer; run with --torture")
    config = config_of(text, train__steps=STEPS)
    tally = killed_at_random(config, tmp_path, 500, prepare=write_naively)
    record(
        "kill-random-naive",
        f"{tally.kills} kills at random times in {tally.runs} runs",
        f"{len(tally.stuck)} runs unable to resume, {len(tally.other)} in other bits",
    )
    assert 0 < tally.bad() < tally.runs


def dying_at(folder, point, log):
    """Return what kills a process before its operation number `point` under `folder`.

    Each operation is appended to `log` first, one a line.
    """
    count = 0
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def see(operation):
        nonlocal count
        if operation.kind not in CHANGES:
            return
        count += 1
        os.write(file, f"{operation}\n".encode())
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: tap(folder, see)


def without_pid(log):
    """Return the operations in a log, the number of the process in a name left out."""
    return [re.sub(r"\.\d+\.(tmp|new)", r".PID.\1", line) for line in log.read_text().splitlines()]


def named(operation):
    """Return an operation without the number of its step."""
    return re.sub(r"step-\d+", "step-N", operation)


def killed_at_points(config, folder, choose, *, prepare=lambda: None):
    """Kill one run at each chosen operation; return the tally and how often each point was hit."""
    log, runs = folder.with_name("operations"), folder / "runs"
    finish(Run.create(config, folder / "warm"))
    runs.mkdir()

    def prepared(point):
        return lambda: (prepare(), dying_at(runs, point, log)())

    path = runs / "run"
    expected, _ = whole(config, path, prepared(None))
    operations = without_pid(log)
    shutil.rmtree(path)
    tally, hits = Tally(), collections.Counter()
    for point in choose(operations):
        lives = iter((prepared(point), prepare))
        tally.follow(path, expected, (Life(path, config, prepare=each) for each in lives))
        assert without_pid(log) == operations[:point]  # it died where it was meant to
        hits[named(operations[point - 1])] += 1
        shutil.rmtree(path)
    return tally, hits, operations


def inside_saves(operations, saves):
    """Return the numbers, from 1, of the operations on checkpoints of this many saves."""
    steps = sorted({step for each in operations for step in re.findall(r"step-\d+", each)})
    wanted = tuple(f"checkpoints/{step}" for step in steps[:saves])
    return [n for n, each in enumerate(operations, 1) if any(step in each for step in wanted)]


@pytest.mark.slow
def test_runs_killed_at_every_point_of_a_save_end_in_the_same_bits(tmp_path, text, load, record):
    """A point is an operation on a file or folder; each write is two, so one is in its middle."""
    config = config_of(text, train__steps=STEPS)
    chance = random.Random(4)

    def choose(operations):
        points = inside_saves(operations, SAVES)
        others = sorted(set(range(1, len(operations) + 1)) - set(points))
        return load([*chance.sample(points, 3), chance.choice(others)], points + others)

    tally, hits, operations = killed_at_points(config, tmp_path, choose)
    save = {point: n for point, n in hits.items() if "checkpoints/step-" in point}
    first = {named(operations[n - 1]) for n in inside_saves(operations, 1)}
    record(
        "kill-points",
        f"{tally.kills} kills: {len(save)} points of a save, each at least "
        f"{min(n for point, n in save.items())} times, and {hits.total() - sum(save.values())} "
        f"other operations of a run",
        f"{len(tally.stuck)} unable to resume, {len(tally.other)} in other bits, "
        f"at most {max(tally.lost)} reported steps lost of an interval of {EVERY}",
    )
    assert tally.stuck == []
    assert tally.other == []
    assert max(tally.lost) <= EVERY
    assert len(first) > 20
    assert load(True, first <= save.keys() and min(save[point] for point in first) >= SAVES)


@pytest.mark.slow
def test_a_naive_writer_killed_at_every_point_of_a_save_fails(tmp_path, text, load, record):
    config = config_of(text, train__steps=STEPS)

    def choose(operations):
        points = inside_saves(operations, 2)
        return [points[0] - 1, *load(points[2:8:3], points)]  # the first is outside

    tally, hits, _ = killed_at_points(config, tmp_path, choose, prepare=write_naively)
    record(
        "kill-points-naive",
        f"{tally.kills} kills at {len(hits)} points of a save",
        f"{len(tally.stuck)} runs unable to resume, {len(tally.other)} in other bits",
    )
    assert 0 < tally.bad() < tally.runs
