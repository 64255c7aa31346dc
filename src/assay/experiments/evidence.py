"""What is known: a record for each task that was done, as the laboratory and a report keep it."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, final

from pydantic import field_validator

from assay.experiments.outcome import Outcome
from assay.experiments.tasks import Task
from assay.experiments.written import seal
from assay.schema import Config, decode, shown

_KINDS: dict[str, type | tuple[type, ...]] = {
    "started": str,
    "elapsed_s": (int, float),
    "machine": dict,
    "packages": dict,
}


@final
class Record(Config):
    """One task and what came of it."""

    key: str
    """Names all it depends on: the task, its texts and runs, the code."""
    task: dict[str, Any]
    """The task, whole."""
    state: Literal["done", "diverged"]
    """`diverged`: a training it stands on ran away."""
    values: dict[str, Any]
    """What was found; empty if it diverged."""
    error: str = ""
    """Where and how it diverged."""
    code_sha256: str
    """Of the sources the values can depend on."""
    made: dict[str, Any]
    """When, how long it took, by which code, packages and machine."""

    @field_validator("made")
    @classmethod
    def _check_made(cls, made: dict[str, Any]) -> dict[str, Any]:
        for name, kind in _KINDS.items():
            if name in made and not isinstance(made[name], kind):
                raise ValueError(f"made.{name} of type {type(made[name]).__name__} found")
        return made

    def value(self, name: str) -> float:
        """Return a number by its name, dotted where it is nested; NaN where there is none."""
        found: Any = self.values
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return math.nan if found is None else float(found)


@final
class Evidence:
    """Records by the tasks they answer; what a judge looks at, and all that it looks at."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records = {seal(record.task): record for record in records}

    def __contains__(self, task: Task) -> bool:
        return seal(task.model_dump(mode="json")) in self._records

    def __getitem__(self, task: Task) -> Record:
        return self._records[seal(task.model_dump(mode="json"))]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    def __or__(self, other: "Evidence") -> "Evidence":
        return Evidence([*self, *other])

    def values(self, tasks: Iterable[Task], name: str) -> list[float]:
        """Return a number of each task."""
        return [self[task].value(name) for task in tasks]

    def outcomes(self, arms: Mapping[str, Sequence[Task]], metric: str) -> dict[str, list[Outcome]]:
        """Return what `compare` takes: each arm's tasks, in the order of the same seeds."""
        return {
            arm: [self._outcome(arm, seed, task, metric) for seed, task in enumerate(tasks)]
            for arm, tasks in arms.items()
        }

    def _outcome(self, arm: str, seed: int, task: Task, metric: str) -> Outcome:
        record = self[task]
        diverged = record.state == "diverged"
        state = "diverged" if diverged else "finished"
        metrics = {} if diverged else {metric: record.value(metric)}
        return Outcome(arm, seed, record.key, state, metrics, record.error, 0.0)


def unsealed(sealed: Mapping[str, Any]) -> Record:
    """Return the record of an object that holds it with its SHA-256.

    Raises:
        ValueError: If there is none, or it was changed since it was sealed.
    """
    content = sealed.get("record")
    if not isinstance(content, dict):
        raise ValueError(f"record: {shown(content)} found; expected an object")
    try:
        found = seal(content)
    except RecursionError:
        raise ValueError("nested without end; expected a few levels") from None
    if sealed.get("sha256") != found:
        raise ValueError("a record does not have the SHA-256 it was sealed with")
    return decode(Record, content)
