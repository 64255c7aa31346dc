"""The trainings of a laboratory: run folders of jobs, and their steps, alone or in an ensemble."""

import contextlib
import shutil
from collections.abc import Callable, Sequence

from assay.config import RunConfig
from assay.errors import DivergedError
from assay.experiments.jobs import Job, Jobs, State
from assay.experiments.outcome import Outcome, read_outcome
from assay.runs.ensemble import train_ensemble
from assay.runs.run import Run
from assay.schema import decode
from assay.train.checkpoint import checkpoints

RESULTS: dict[str, State] = {"finished": "done", "diverged": "diverged"}
"""Statuses of a run that no more work changes, and the states of a job they come to."""


def run_of(jobs: Jobs, job: Job) -> Run:
    """Return the run of a job that this process holds; make its folder if it has none."""
    path = jobs.cells / job.key
    if (path / "config.json").is_file():
        run = Run.open(path)
    else:
        shutil.rmtree(path, ignore_errors=True)  # a worker was killed while it made the folder
        config = RunConfig.model_validate_json(jobs.content(job.key))
        run = Run.create(decode(RunConfig, config.model_dump()), path)
    run.draws_curve = False
    return run


def train_alone(jobs: Jobs, job: Job, stop: Callable[[], bool]) -> Outcome:
    """Train the run of a job from where it stands, and return what has come of it.

    One that began in an ensemble cannot go on alone to the same bits: it begins anew.
    """
    run = run_of(jobs, job)
    if has_results(run):  # a worker was killed before it could say so
        return _outcome(job, run)
    if is_stacked(run):
        shutil.rmtree(run.folder.path)
        run = run_of(jobs, job)
    with contextlib.suppress(DivergedError):  # as its manifest says too
        for _ in run.train(stop=stop):
            pass
    return _outcome(job, run)


def train_batch(jobs: Jobs, group: Sequence[Job], stop: Callable[[], bool]) -> list[Outcome]:
    """Train the runs of several jobs as an ensemble, and return what has come of each."""
    runs = [run_of(jobs, job) for job in group]
    for _ in train_ensemble(runs, stop=stop):
        pass
    return [_outcome(job, run) for job, run in zip(group, runs, strict=True)]


def has_results(run: Run) -> bool:
    """Return whether a run has finished or diverged."""
    return run.folder.read_manifest()["status"] in RESULTS


def is_stacked(run: Run) -> bool:
    """Return whether a run has a checkpoint made in an ensemble."""
    replicas = run.folder.read_manifest()["machine"].get("replicas", 1)
    return bool(replicas > 1 and checkpoints(run.folder.checkpoints))


def may_join(run: Run) -> bool:
    """Return whether a run may join an ensemble: it has no checkpoint, or one of an ensemble."""
    return not has_results(run) and (is_stacked(run) or not checkpoints(run.folder.checkpoints))


def _outcome(job: Job, run: Run) -> Outcome:
    return read_outcome(run.folder.path, job.label, run.config.train.seed, run.config)
