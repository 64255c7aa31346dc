"""Company: which waiting trainings a process takes together, and how many.

On a CPU each goes by itself: a process a core beats a stack of models on all of them (docs/LOG.md).
On a CUDA device, which waits for small models, the number is timed, once for each architecture.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, final

from assay.config import RunConfig
from assay.engine.autotune import plan_from_manifest
from assay.engine.device import resolve_plan
from assay.engine.ensemble_size import choose_replicas
from assay.errors import AssayError
from assay.experiments.jobs import ENDED, Job, Jobs
from assay.experiments.trainings import may_join, run_of
from assay.runs.run import Run

_ITS_OWN: dict[str, Any] = {"model": {"init"}, "train": {"seed": True, "optimizer": {"lr"}}}
"""Config fields that may differ between the runs of one ensemble."""


@final
class Batcher:
    """Finds trainings that one ensemble can take, and remembers how many at once are fastest."""

    def __init__(self, together: int | None = None) -> None:
        """Fix how many trainings go together; None stands for as many as are fastest here."""
        self._together = together
        self._sizes: dict[str, int] = {}

    @contextlib.contextmanager
    def of(self, jobs: Jobs, job: Job, keys: Sequence[str]) -> Iterator[list[Job]]:
        """Take jobs to be done together with one that this process holds, and hold them."""
        others: list[str] = []
        if job.kind == "run":
            config = RunConfig.model_validate_json(jobs.content(job.key))
            if self._may_be_several(config) and _is_open(jobs, job):
                others = _alike(jobs, job, keys, shared_fields(config))
        room = self._size(jobs, job, 1 + len(others)) - 1 if others else 0
        with jobs.several_claimed(others, most=room) as taken:
            yield taken

    def _may_be_several(self, config: RunConfig) -> bool:
        if config.train.exact_rows is not None:  # sums of stacked models have another order
            return False
        if self._together is not None:
            return self._together > 1
        return resolve_plan(config.train).device.type == "cuda"

    def _size(self, jobs: Jobs, job: Job, most: int) -> int:
        """Return how many to train at once, of `most` that could be."""
        if self._together is not None:
            return min(most, self._together)
        kind = shared_fields(RunConfig.model_validate_json(jobs.content(job.key)))
        if kind not in self._sizes:
            self._sizes[kind] = 1  # unless more can be timed: memory may not do, or the text
            with contextlib.suppress(AssayError, OSError, RuntimeError, ValueError):
                run = run_of(jobs, job)
                plan = plan_from_manifest(
                    resolve_plan(run.config.train), run.folder.read_manifest()["machine"]
                )
                self._sizes[kind], _ = choose_replicas(run.config, plan, most=most)
        return min(most, self._sizes[kind])


def shared_fields(config: RunConfig) -> str:
    """Return what trainings must share to go together: all but seeds, first weights and rates."""
    return config.model_dump_json(exclude=_ITS_OWN)


def _alike(jobs: Jobs, first: Job, keys: Sequence[str], kind: str) -> list[str]:
    """Return the keys of other trainings like the first that are not done."""
    left = [job for job in jobs.all(list(keys)) if job.kind == "run" and job.state not in ENDED]
    return [
        job.key
        for job in left
        if job.key != first.key
        and shared_fields(RunConfig.model_validate_json(jobs.content(job.key))) == kind
        and _is_open(jobs, job)
    ]


def _is_open(jobs: Jobs, job: Job) -> bool:
    """Return whether nothing that a job has done so far keeps it out of an ensemble."""
    path = jobs.cells / job.key
    if not (path / "config.json").is_file():
        return True
    try:
        return may_join(Run.open(path))
    except AssayError:  # alone, it says what is wrong
        return False
