"""Doing tasks again in an empty laboratory, and saying of a number whether it came back."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from assay.errors import ConfigError, DataError, RunError
from assay.experiments.claim import Number
from assay.experiments.evidence import Evidence, Record
from assay.experiments.jobs import Jobs
from assay.experiments.laboratory import Laboratory
from assay.experiments.tasks import Task
from assay.schema import cut

Answer = Literal[
    "reproduced bit for bit", "within the interval", "not reproduced", "cannot be run here"
]
_CLOCKS = {"train_s"}  # values that no run repeats
_FACTS = ("device_name", "device", "threads", "cpu_capability", "torch", "platform", "replicas")


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of one number.

    Attributes:
        id: Of the number, as the report has it.
        answer: Whether it came back.
        was: In the report.
        found: Now; NaN where it could not be run.
        ran: Tasks that were run again for it.
        tasks: Tasks it stands on.
        why: The likeliest cause of a difference, or what is missing.
    """

    id: str
    answer: Answer
    was: Number
    found: float
    ran: int
    tasks: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Rerun:
    """What the report knew, what was found again, and why other tasks could not be done."""

    before: Evidence
    fresh: Evidence
    missing: Mapping[Task, str]

    @classmethod
    def of(
        cls, tasks: Sequence[Task], before: Evidence, laboratory: Laboratory, *, lack: str = ""
    ) -> "Rerun":
        """Do the tasks again, as far as that goes: not at all where the machine lacks something."""
        if lack:
            return cls(before, Evidence(), dict.fromkeys(tasks, lack))
        missing: dict[Task, str] = {}
        keys: dict[Task, str] = {}
        for task in tasks:
            try:
                keys[task] = laboratory.key(task)
            except (DataError, ConfigError) as error:  # such as a text that is not here
                missing[task] = str(error)
        errors: dict[str, str] = {}
        try:
            laboratory.do(list(keys))
        except RunError as failed:
            jobs = Jobs(laboratory.folder).all(list(keys.values()))
            errors = {job.key: job.error or str(failed) for job in jobs}
        fresh = laboratory.evidence(keys)
        for task, key in keys.items():
            if task not in fresh:
                missing[task] = errors.get(key, "it was interrupted")
        return cls(before, fresh, missing)

    def verified(self, name: str, was: Number, found: float, ran: Sequence[Task]) -> Verified:
        """Compare a number with what it is now."""
        n_tasks = len(set(was.of))
        lost = [self.missing[task] for task in ran if task in self.missing]
        if lost:
            return Verified(name, "cannot be run here", was, math.nan, 0, n_tasks, lost[0])
        same = all(_repeats(self.before[task], self.fresh[task]) for task in ran)
        if same and (found == was.value or math.isnan(found)):
            return Verified(name, "reproduced bit for bit", was, found, len(ran), n_tasks)
        inside = was.low is not None and was.high is not None and was.low <= found <= was.high
        answer: Answer = "within the interval" if inside else "not reproduced"
        why = _cause(self.before, self.fresh, ran)
        return Verified(name, answer, was, found, len(ran), n_tasks, why)


def _repeats(before: Record, after: Record) -> bool:
    kept = [
        {name: value for name, value in record.values.items() if name not in _CLOCKS}
        for record in (before, after)
    ]
    return kept[0] == kept[1] and before.state == after.state


def _cause(before: Evidence, fresh: Evidence, ran: Iterable[Task]) -> str:
    """Return what differs in how the records were made, or that nothing recorded does."""
    causes: dict[str, None] = {}
    timed = False
    for task in ran:
        was, now = before[task], fresh[task]
        timed = timed or task.timed
        if was.code_sha256 != now.code_sha256:
            causes["other code"] = None
        machines = was.made.get("machine", {}), now.made.get("machine", {})
        for fact in _FACTS:
            old, new = (machine.get(fact) for machine in machines)
            if old != new:
                causes[f"{fact}: {cut(str(old))} then, {cut(str(new))} now"] = None
    if timed:
        causes["it measures time, which no run repeats"] = None
    return "; ".join(causes) or "nothing recorded differs"


def to_run(number: Number, evidence: Evidence, *, cheap: bool) -> Sequence[Task]:
    """Return the tasks to do again for a number: all, or the quickest."""
    tasks = tuple(dict.fromkeys(number.of))
    if cheap and len(tasks) > 1:
        return (min(tasks, key=lambda task: _seconds(evidence[task])),)
    return tasks


def _seconds(record: Record) -> float:
    seconds = record.values.get("train_s", record.made.get("elapsed_s"))
    return float(seconds) if isinstance(seconds, int | float) else 0.0
