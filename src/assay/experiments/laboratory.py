"""A laboratory: the folder in which runs and tasks are done once, and found again.

LAB/
    jobs.sqlite       what is to be done, and where it stands
    cells/KEY/        run folders
    records/KEY.json  what tasks found, each sealed with its SHA-256
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch

from assay.config import RunConfig
from assay.errors import ConfigError, RunError
from assay.experiments.as_ended import check_as_ended
from assay.experiments.claim import Budget, Claim
from assay.experiments.code import code_sha256
from assay.experiments.evidence import Evidence, Record
from assay.experiments.jobs import Job, Jobs, results_in
from assay.experiments.keys import Keys
from assay.experiments.outcome import METRICS, read_outcome
from assay.experiments.records import read_record
from assay.experiments.tasks import Task
from assay.experiments.tasks.train import Train
from assay.experiments.work import Told, run_all
from assay.runs.folder import RunFolder
from assay.schema import shown

_MADE = ("started", "code", "packages", "machine")


@final
class Laboratory:
    """Does tasks, and knows what was done.

    Attributes:
        folder: Of its files.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 1,
        together: int | None = None,
        told: Told = lambda jobs: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Name the folder; nothing is made yet.

        Args:
            folder: Of its files.
            workers: Processes of one thread each.
            together: As in `run_all`.
            told: As in `run_all`.
            stop: As in `run_all`.
        """
        self.folder = folder
        self._workers, self._together = workers, together
        self._told, self._stop = told, stop
        self._keys = Keys()

    def key(self, task: Task) -> str:
        """Return the name under which a task is done here.

        Raises:
            DataError: If a text it reads is not to be had.
        """
        return self._keys.of_task(task)

    def evidence(self, tasks: Iterable[Task]) -> Evidence:
        """Return the records of those tasks that were done.

        Raises:
            RunError: If a record or a run folder was edited.
        """
        tasks = list(tasks)
        ended = results_in(self.folder, list(map(self.key, tasks)))
        found = (self._record(task, ended) for task in tasks)
        return Evidence(record for record in found if record is not None)

    def do(self, tasks: Sequence[Task]) -> None:
        """Do what is not done: trainings, then what looks at them, then, alone, what is timed.

        Raises:
            RunError: If a task failed; the others were done.
        """
        jobs = Jobs(self.folder)
        runs = list(dict.fromkeys(config for task in tasks for config in task.needs))
        trained = [self._add_run(jobs, config) for config in runs]
        looked = [task for task in tasks if not isinstance(task, Train)]
        apart = [self._add_task(jobs, task) for task in looked if not task.timed]
        alone = [self._add_task(jobs, task) for task in looked if task.timed]
        for keys, processes in (
            (trained, self._workers),
            (apart, self._workers),
            (alone, 1),
        ):
            if keys and not self._stop():
                ended = run_all(
                    self.folder,
                    keys,
                    workers=processes,
                    together=self._together,
                    told=self._told,
                    stop=self._stop,
                )
                _check_none_failed(ended)

    def gather(self, claims: Sequence[Claim], budget: Budget) -> Evidence:
        """Do all that claims ask for, round by round, and return the evidence.

        Stopped, it returns what there is.

        Raises:
            ConfigError: If this machine is none for the budget.
            RunError: As `do` does.
        """
        if lack := lacking(budget):
            raise ConfigError(f"--budget: {lack}. Choose quick or laptop, or another machine.")
        known = Evidence()
        while True:
            asked = dict.fromkeys(task for claim in claims for task in claim.tasks(budget, known))
            new = [task for task in asked if task not in known]
            found = self.evidence(new)
            known |= found
            missing = [task for task in new if task not in found]
            if missing and not self._stop():
                self.do(missing)
            elif not found or self._stop():
                return known

    def _add_run(self, jobs: Jobs, config: RunConfig) -> str:
        key = self._keys.of_run(config)
        jobs.add(key, f"training, seed {config.train.seed}", config.model_dump_json())
        return key

    def _add_task(self, jobs: Jobs, task: Task) -> str:
        key = self._keys.of_task(task)
        content = {
            "task": task.model_dump(mode="json"),
            "runs": list(map(self._keys.of_run, task.needs)),
        }
        jobs.add(key, str(task.model_dump()["kind"]), json.dumps(content), kind="task")
        return key

    def _record(self, task: Task, ended: Mapping[str, Any]) -> Record | None:
        key = self._keys.of_task(task)
        if isinstance(task, Train):
            return self._of_run(task, key, ended)
        path = self.folder / "records" / f"{key}.json"
        if not path.is_file():
            return None
        record = read_record(path)
        if record.key != key or record.task != task.model_dump(mode="json"):
            raise RunError(
                f"{path}: the record of another task ({shown(record.key)}) found; expected that "
                "which its name says. Remove it, and the task is done again."
            )
        return record

    def _of_run(self, task: Train, key: str, ended: Mapping[str, Any]) -> Record | None:
        folder = RunFolder.inside(self.folder / "cells", key).path
        if not (folder / "config.json").is_file():
            return None
        manifest = RunFolder(folder).read_manifest()
        if manifest["status"] not in ("finished", "diverged"):
            return None
        outcome = read_outcome(folder, "training", task.run.train.seed, task.run)
        check_as_ended(self.folder, ended, [outcome])
        result = manifest.get("result", {})
        values = {name: result[name] for name in (*METRICS, "train_s") if name in result}
        return Record(
            key=key,
            task=task.model_dump(mode="json"),
            state="done" if outcome.state == "finished" else "diverged",
            values=values,
            error=outcome.error,
            code_sha256=code_sha256(),
            made={name: manifest[name] for name in _MADE if name in manifest},
        )


def lacking(budget: Budget) -> str:
    """Return what this machine lacks for a budget; empty if nothing."""
    if budget == "full" and not torch.cuda.is_available():
        return "the full budget needs a CUDA device, and there is none here"
    return ""


def _check_none_failed(jobs: Sequence[Job]) -> None:
    failed = [job for job in jobs if job.state == "failed"]
    if failed:
        raise RunError(
            f"{len(failed)} of {len(jobs)} tasks failed; the first, {failed[0].label} "
            f"({failed[0].key}): {failed[0].error}. The same command tries them again."
        )
