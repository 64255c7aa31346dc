"""Scratch runs: the config and text of a run in another folder, trained by processes of their own.

Processes are started by the interpreter and not by `multiprocessing`, since a hash seed can only be
given to an interpreter that starts, and since a spawned child would run `python -m assay` again.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from assay.config import RunConfig
from assay.engine.autotune import plan_from_manifest
from assay.engine.device import describe_machine, resolve_plan
from assay.errors import ConfigError, RunError
from assay.plugin import handed_on
from assay.runs.folder import RunFolder
from assay.runs.manifest import check_same_machine, new_manifest
from assay.runs.metrics import read_rows
from assay.runs.run import Run
from assay.schema import override
from assay.train.plan import ExecutionPlan

_BUDGET_S = 40.0  # in steps; starting processes comes on top
_MOST_STEPS = 200  # beyond, a check learns nothing that fewer would not tell
_POLL_S = 0.005
_BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(100_000))"


@dataclass(frozen=True, slots=True)
class Scratch:
    """A run to be trained and thrown away.

    Attributes:
        folder: Its files.
        threads: What it computes with.
        hash_seed: What PYTHONHASHSEED is in its processes.
    """

    folder: RunFolder
    threads: int
    hash_seed: int = 0


def new_scratch(run: Run, path: Path, *, every: int, hash_seed: int = 0) -> Scratch:
    """Make the folder of a run like `run` that logs every step and saves every `every`.

    The schedule stays that of `run`: steps are left out by stopping early. What was left to `auto`
    is as it was settled when `run` began, as far as this machine has it.
    """
    manifest = run.folder.read_manifest()
    config = _scratch_config(run.config, every)
    machine = _machine_here(config, manifest["machine"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with RunFolder.being_made(path) as folder:
        shutil.copytree(run.folder.tokenizer, folder.tokenizer)
        folder.write_json("manifest.json", new_manifest(config, manifest["data"], machine))
        folder.write_json("config.json", config.model_dump(mode="json"))
    return Scratch(RunFolder(path), machine["threads"], hash_seed)


def _scratch_config(config: RunConfig, every: int) -> RunConfig:
    changes = {
        "train.log_every": 1,
        "train.checkpoint_every": every,
        "train.keep_checkpoints": 2,
        "train.tensorboard": False,
        "eval.final_max_tokens": config.seq_len,  # the last evaluation is in no metrics
    }
    return override(config, changes)


def machine_differences(run: Run) -> list[str]:
    """Return what differs here from where `run` began and may change its bits."""
    manifest = run.folder.read_manifest()
    began = {"torch": manifest["packages"]["torch"], **manifest["machine"]}
    return check_same_machine(began, _machine_here(run.config, began), allow=True)


def _machine_here(config: RunConfig, began: Mapping[str, Any]) -> dict[str, Any]:
    """Describe this machine, used as far as it can be as the run used its own."""
    return describe_machine(_plan(config, began)) | {"threads": began["threads"]}


def _plan(config: RunConfig, began: Mapping[str, Any]) -> ExecutionPlan:
    """Return the plan a run began with; on another kind of device, that of a new run here."""
    plan = resolve_plan(config.train)
    same_kind = str(began["device"]).partition(":")[0] == plan.device.type
    return plan_from_manifest(plan, began) if same_kind else plan


def step_seconds(run: Run) -> float | None:
    """Return the median time of the steps that `run` timed; None if it took none."""
    rates = [row.get("tokens_per_s") for row in read_rows(run.folder.path / "timings.jsonl")]
    known = [rate for rate in rates if isinstance(rate, float) and rate > 0]
    if not known:
        return None
    return run.config.train.batch_size * run.config.seq_len / median(known)


def choose_steps(run: Run, asked: int | None, *, passes: int, reach: int) -> int:
    """Return N: what is asked for, else what lets `passes` times N steps take under a minute.

    Raises:
        ConfigError: If the run has fewer than `reach` times N steps in all.
    """
    steps = run.config.train.steps
    most = steps // reach
    if most < (asked or 1):
        raise ConfigError(
            f"--steps: {asked or 1} found; expected at most {most}, since {run.folder.path} has "
            f"{steps} steps and the check takes {reach} times as many. Ask for fewer, or check a "
            "longer run."
        )
    if asked is not None:
        return asked
    seconds = step_seconds(run)
    affordable = _MOST_STEPS if seconds is None else int(_BUDGET_S / passes / seconds)
    return max(min(2, most), min(affordable, most, _MOST_STEPS))


def train_scratch(scratch: Scratch, until: int) -> None:
    """Train to step `until` in a process of its own.

    Raises:
        RunError: With what the process said, if it failed.
    """
    with _process(scratch, until, hold=0) as process:
        process.wait()
        _check_ended(scratch, process)


def kill_scratch(scratch: Scratch, after: int, before: int, within_s: float) -> int:
    """Train, and kill -9 the process at a random time between two steps; return its last step.

    Args:
        scratch: Saves a checkpoint at step `after`.
        after: The process lives until that checkpoint is on the disk.
        before: A step that it never finishes.
        within_s: Up to so many seconds after the checkpoint.

    Raises:
        RunError: With what the process said, if it ended by itself.
    """
    saved = scratch.folder.checkpoints / f"step-{after:06d}"
    with _process(scratch, before, hold=before) as process:
        while not saved.is_dir() and process.poll() is None:
            time.sleep(_POLL_S)
        if process.poll() is None:
            time.sleep(random.SystemRandom().uniform(0, within_s))
            process.kill()
            process.wait()
        else:
            _check_ended(scratch, process)
    steps = [row["step"] for row in read_rows(scratch.folder.path / "metrics.jsonl")]
    return max(steps, default=after)


@contextmanager
def _process(scratch: Scratch, until: int, *, hold: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker, out of reach of the terminal's Ctrl-C, and leave none behind."""
    numbers = [str(number) for number in (until, scratch.threads, hold)]
    path = str(scratch.folder.path.absolute())
    command = [sys.executable, "-P", "-m", "assay.checks.worker", path, *numbers]
    with _log(scratch).open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(scratch),
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _environment(scratch: Scratch) -> dict[str, str]:
    """Return this process's, with the package it runs: `-P` keeps the working folder out."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return (
        os.environ
        | handed_on()
        | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONHASHSEED": str(scratch.hash_seed),
            "OMP_NUM_THREADS": str(scratch.threads),
        }
    )


def _log(scratch: Scratch) -> Path:
    return scratch.folder.path.with_suffix(".log")


def _check_ended(scratch: Scratch, process: subprocess.Popen[bytes]) -> None:
    if process.returncode:
        told = _log(scratch).read_text(encoding="utf-8", errors="replace").strip()
        last = told.rpartition("\n")[2] or f"it ended with status {process.returncode}"
        raise RunError(f"{scratch.folder.path}: a process of the check failed: {last}")


@contextmanager
def busy_process() -> Iterator[None]:
    """Keep one core busy meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", _BUSY], start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()
