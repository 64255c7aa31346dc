"""Workers: processes that take cells from the table of jobs and run them, one after another.

Every worker computes on one thread, so that the bits of a cell do not depend on how many workers
there are. They do depend on its ensemble, if it is in one, and its manifest says so.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import torch

from assay.disk import MARKS, parse_json
from assay.errors import AssayError, RunError
from assay.experiments.batching import Batcher
from assay.experiments.evidence import Record
from assay.experiments.jobs import ENDED, Job, Jobs, wait_a_moment
from assay.experiments.keys import code_of
from assay.experiments.outcome import Outcome
from assay.experiments.records import finite, made_here, write_record
from assay.experiments.tasks import read_task
from assay.experiments.trainings import (
    RESULTS,
    has_results,
    is_stacked,
    run_of,
    train_alone,
    train_batch,
)
from assay.plugin import handed_on, take_over
from assay.runs.manifest import now
from assay.runs.run import Run

if TYPE_CHECKING:  # Windows has one of them only
    from multiprocessing.context import ForkServerContext, SpawnContext

_POLL_S = 0.2
_THREADS = 1
_FAILURES = (AssayError, OSError, RuntimeError, ValueError, MemoryError)
Told = Callable[[list[Job]], None]


def run_all(
    folder: Path,
    keys: Sequence[str],
    *,
    workers: int,
    together: int | None = None,
    told: Told = lambda jobs: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Job]:
    """Run the jobs of these keys that have not ended, and return all of them.

    Args:
        folder: Of the table of jobs.
        keys: In the order in which they are to be taken.
        workers: Processes of one thread each.
        together: Trainings that a process does at once, as replicas, where they differ in seeds,
            first weights and rates alone; None stands for as many as are fastest here.
        told: Called with the jobs as they stand, several times a second.
        stop: Asked as often; if true, each worker saves the run it is at, and the same call later
            goes on from there.

    Raises:
        RunError: If every worker stopped before the jobs had ended.
    """
    jobs, keys = Jobs(folder), list(keys)
    waiting = sum(job.state not in ENDED for job in jobs.all(keys))
    context, environment = _context(), os.environ | handed_on()
    processes = [
        context.Process(target=_work, args=(folder, keys, together, environment))
        for _ in range(min(workers, waiting))
    ]
    stopped = False
    try:
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            told(jobs.all(keys))
            if stopped := stop():
                break
            time.sleep(_POLL_S)
    finally:
        started = [process for process in processes if process.pid is not None]
        for process in started:
            if process.is_alive():
                process.terminate()
        for process in started:
            process.join()
    ended = jobs.all(keys)
    told(ended)
    if not (stopped or stop()):
        _check_all_ended(ended, [process.exitcode for process in processes])
    return ended


def _check_all_ended(jobs: Sequence[Job], statuses: Sequence[int | None]) -> None:
    left = [job for job in jobs if job.state not in ENDED]
    if left:
        raise RunError(
            f"{len(left)} of {len(jobs)} jobs have not ended, such as {left[0].label}: the workers "
            f"stopped, with exit status {', '.join(map(str, statuses))}. Mend what they said, or "
            "where they were killed (-9) give them memory or --workers 1; then give the same "
            "command again. What is done is kept."
        )


def _context() -> "ForkServerContext | SpawnContext":
    """Return how workers are started: on Linux from a process that has imported all this once."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    resource_tracker.ensure_running()  # which would unblock what is blocked next
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the parent's to answer
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return context


def _work(
    folder: Path, keys: list[str], together: int | None, environment: Mapping[str, str]
) -> None:
    """Be a worker until every job has ended, an interrupt comes, or the parent is gone."""
    os.environ.clear()  # it may be that of when the first worker was started
    os.environ.update(environment)
    torch.set_num_threads(_THREADS)
    try:
        take_over()
        _take_jobs(folder, keys, together)
    except (AssayError, OSError) as error:
        sys.exit(f"assay: {error}")


def _take_jobs(folder: Path, keys: list[str], together: int | None) -> None:
    interrupt, parent = _Interrupt(), multiprocessing.parent_process()
    jobs, batcher = Jobs(folder), Batcher(together)

    def stop() -> bool:
        return interrupt.came or parent is None or not parent.is_alive()

    while not stop():
        with jobs.claimed(keys) as job:
            if job is not None:
                with batcher.of(jobs, job, keys) as others:
                    run_jobs(jobs, [job, *others], stop=stop)
        if job is None:
            if all(job.state in ENDED for job in jobs.all(keys)):
                return
            wait_a_moment()


class _Interrupt:
    """Whether the parent asked to stop. A Ctrl-C reaches every process; the parent answers it."""

    def __init__(self) -> None:
        self.came = False
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True


def run_jobs(jobs: Jobs, group: Sequence[Job], *, stop: Callable[[], bool] = lambda: False) -> None:
    """Do what this process holds: one job, or several trainings at once, each as `run_job` does.

    What fails in an ensemble is tried alone, unless that would throw steps away.
    """
    if len(group) == 1:
        run_job(jobs, group[0], stop=stop)
        return
    began = time.monotonic()
    try:
        outcomes = train_batch(jobs, group, stop)
    except _FAILURES as error:
        for job in group:
            run = run_of(jobs, job)
            if is_stacked(run) and not has_results(run):
                jobs.end(job.key, "failed", error=_said(error))
            else:
                run_job(jobs, job, stop=stop)
        return
    share = (time.monotonic() - began) / len(group)
    for job, outcome in zip(group, outcomes, strict=True):
        _end_training(jobs, job, outcome, elapsed_s=share)


def run_job(jobs: Jobs, job: Job, *, stop: Callable[[], bool] = lambda: False) -> None:
    """Do one job that this process holds, from wherever it stands, and write down how it ended.

    A run that diverges is a result. Any other failure is written down too, and costs no other job.
    """
    began = time.monotonic()
    try:
        if job.kind == "task":
            _do_task(jobs, job)
            jobs.end(job.key, "done", elapsed_s=time.monotonic() - began)
        else:
            outcome = train_alone(jobs, job, stop)
            _end_training(jobs, job, outcome, elapsed_s=time.monotonic() - began)
    except _FAILURES as error:
        jobs.end(job.key, "failed", error=_said(error))


def _end_training(jobs: Jobs, job: Job, outcome: Outcome, *, elapsed_s: float) -> None:
    """Write down what came of a training, unless it is to go on."""
    if outcome.state in RESULTS:
        jobs.keep_result(job.key, outcome.result())
        jobs.end(job.key, RESULTS[outcome.state], elapsed_s=elapsed_s, error=outcome.error)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _do_task(jobs: Jobs, job: Job) -> None:
    """Do a task and write its record; where a run it stands on diverged, that is its result."""
    content = parse_json(jobs.content(job.key).encode(), marks=MARKS)
    task = read_task(json.dumps(content["task"]))
    runs = tuple(Run.open(jobs.cells / key) for key in content["runs"])
    errors = [run.folder.read_manifest().get("error") for run in runs]
    error = next((error for error in errors if error), "")
    started, began = now(), time.monotonic()
    values = {} if error else finite(task.take(runs))
    record = Record(
        key=job.key,
        task=content["task"],
        state="diverged" if error else "done",
        values=values,
        error=error,
        code_sha256=code_of(task),
        made=made_here(started, time.monotonic() - began),
    )
    write_record(record, jobs.folder)
