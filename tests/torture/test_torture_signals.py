"""`assay train` sent SIGTERM, SIGINT and SIGHUP at any time, once and twice."""

import collections
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
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

from assay.runs.run import Run
from assay.train.checkpoint import checkpoints
from patience import catches, wait_until

__all__ = ["text"]  # the fixture
STEPS = 24
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
AT_ONCE = 130


@dataclass
class Case:
    """What is sent and when: `delay` seconds after the start, and perhaps `again` after that."""

    number: signal.Signals
    delay: float
    again: float | None

    def __str__(self):
        twice = f", again after {self.again:.4f} s" if self.again is not None else ""
        return f"{self.number.name} after {self.delay:.3f} s{twice}"


def train_arguments(path, text):
    arguments = arguments_of(text, train__steps=STEPS)
    return ["train", *arguments, "--name", path.name, "--runs", path.parent]


def sent(child, case):
    """Send the signals to a child that was just started, and return its status."""
    until_main(child)
    for delay in (case.delay, case.again):
        if delay is not None:
            time.sleep(delay)
            os.kill(child, case.number)  # a child that has ended is not waited for yet
    return ended(child)


def until_main(child):
    """Wait until `main` takes signals, or all is over; the child can still be waited for."""

    def there():
        over = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return over is not None or catches(child, *SIGNALS)

    wait_until(there)


def wrong_end(case, status, words, path):
    """Return what is wrong with how the signals were taken, or None."""
    if "Traceback" in words or "Warning" in words:
        return f"a traceback or warning: {words[-400:]}"
    if status == 0:
        return None  # it came too late
    if status != 128 + case.number and (status, case.again is None) != (AT_ONCE, False):
        return f"status {status}: {words[-300:]!r}"
    if re.search(r"^(Saved at step \d+\.|assay: interrupted)", words, re.MULTILINE) is None:
        return f"no sentence: {words[-300:]!r}"
    return saved_as_said(words, path)


def saved_as_said(words, path):
    """Compare the step that was named with the newest checkpoint."""
    said = re.search(r"Saved at step (\d+)\.", words)
    if said is None:  # before the run was made
        return None
    newest = checkpoints(path / "checkpoints")[0].name
    return None if newest == f"step-{int(said[1]):06d}" else f"{said[0]} and {newest} found"


def gone_on_with(path, text, expected, said):
    """Resume, or begin what was not begun; return what is wrong, or None."""
    if not is_run(path):
        if path.exists():
            return f"{path.name} holds the name and is no run"
        arguments = train_arguments(path, text)
    elif is_finished(Run.open(path)):
        return None if hash_of(path) == expected else "it ended in other bits"
    else:
        arguments = ["resume", path]
    if ended(start(lambda: command(arguments), said)):
        return f"it could not go on: {said.read_text()[-300:]}"
    return None if hash_of(path) == expected else "it ended in other bits"


def case_of(n, seconds, chance):
    """Return the `n`th case; half are sent twice: at once, within a step or two, or later."""
    again = None if n % 2 else chance.choice((0.0, 0.002, 0.02, chance.uniform(0, seconds)))
    return Case(SIGNALS[n // 2 % len(SIGNALS)], chance.uniform(0, seconds), again)


@pytest.mark.slow
def test_a_signal_at_any_time_is_taken_as_it_says_and_the_run_goes_on(tmp_path, text, load, record):
    """Any time is from when `main` is there to after the last line.

    That time is of the fastest command so far. A few cases may all miss the steps: then there are
    more, until one was saved.
    """
    expected = unbroken(config_of(text, train__steps=STEPS), tmp_path / "whole")
    path, said, chance = tmp_path / "runs" / "run", tmp_path / "said", random.Random(4)
    shutil.rmtree(tmp_path / "cache")  # the text is prepared again, in the time that is measured
    began = time.monotonic()
    assert ended(start(lambda: command(train_arguments(path, text)), said)) == 0, said.read_text()
    seconds = time.monotonic() - began
    ends, found, saved = collections.Counter(), {}, 0
    while ends.total() < load(4, 150) or (not saved and ends.total() < 60):
        case = case_of(ends.total(), 1.05 * seconds, chance)
        for folder in (path, tmp_path / "cache"):
            shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        status = sent(start(lambda: command(train_arguments(path, text)), said), case)
        if status == 0:
            seconds = min(seconds, time.monotonic() - began)
        words = said.read_text()
        ends[status] += 1
        saved += "Saved at step" in words
        wrong = wrong_end(case, status, words, path) or gone_on_with(path, text, expected, said)
        if wrong is not None:
            found[str(case)] = wrong
            print(str(case), wrong)
    total = ends.total()
    record(
        "signals",
        f"{total} commands, {total // 2} of them signalled twice; {saved} saved at a step; ended "
        + ", ".join(f"{n} with {status}" for status, n in sorted(ends.items())),
        f"{len(found)} with another status, a traceback, or other bits in the end",
    )
    assert saved >= load(1, 50)
    assert found == {}


@pytest.mark.slow
def test_a_real_process_takes_a_signal_as_a_forked_one_does(tmp_path, text, load, record):
    """`python -m assay train`, from its first second, imports and all."""
    expected = unbroken(config_of(text, train__steps=STEPS), tmp_path / "whole")
    path, said, chance = tmp_path / "runs" / "run", tmp_path / "said", random.Random(4)
    line = [sys.executable, "-m", "assay", *map(str, train_arguments(path, text))]
    seconds = 8.0
    ends, found = collections.Counter(), {}
    for number in load(SIGNALS[:1], SIGNALS * 5):
        shutil.rmtree(path, ignore_errors=True)
        again = chance.choice((None, 0.0, 0.05))
        case = Case(number, chance.uniform(load(2.5, 0.3), load(2.6, seconds)), again)
        with said.open("w") as file:
            process = subprocess.Popen(line, stdout=file, stderr=file)
            until_main(process.pid)
            for delay in filter(lambda delay: delay is not None, (case.delay, case.again)):
                time.sleep(delay)
                process.send_signal(number)
            status = process.wait()
        words = said.read_text()
        if status == -number and f"more text: assay generate {path}" in words:
            status = 0  # all was done and said, and the interpreter was being torn down
        ends[status] += 1
        wrong = wrong_end(case, status, words, path) or gone_on_with(path, text, expected, said)
        if wrong is not None:
            found[str(case)] = wrong
            print(str(case), wrong)
    record(
        "signals-process",
        f"{ends.total()} processes of `python -m assay train`; ended "
        + ", ".join(f"{n} with {status}" for status, n in sorted(ends.items())),
        f"{len(found)} with another status, a traceback, or other bits in the end",
    )
    assert found == {}
