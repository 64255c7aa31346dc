"""Run a study of `assay ablate` again: the mean of each arm, and each difference from the first."""

from collections.abc import Mapping
from dataclasses import dataclass

from assay.errors import ConfigError, RunError
from assay.experiments.claim import Number
from assay.experiments.compare import compare
from assay.experiments.evidence import Evidence, Record
from assay.experiments.laboratory import Laboratory
from assay.experiments.paper.rerun import Rerun, Verified, to_run
from assay.experiments.study import Study
from assay.experiments.tasks.train import Train
from assay.runs.folder import RunFolder
from assay.schema import cut

_MADE = ("code", "packages", "machine")


@dataclass(frozen=True, slots=True)
class AskedArms:
    """Numbers of a study that are to be run again.

    Attributes:
        study: Every run of it ended.
        arms: The runs of each arm.
        recorded: What they came to, as their folders say.
        numbers: Those asked for, by their names.
    """

    study: Study
    arms: Mapping[str, list[Train]]
    recorded: Evidence
    numbers: Mapping[str, Number]


def read_arms(study: Study, name: str = "") -> AskedArms:
    """Read what the runs of a study came to, and return numbers of it; run nothing.

    Args:
        study: Every run of it ended.
        name: Of an arm, for its mean and its difference from the first; empty for all.

    Raises:
        RunError: If a run has not ended, or was edited since it ended.
        ConfigError: If there is no arm of this name.
    """
    arms = {
        arm.name: [Train(run=study.design.config(arm, seed)) for seed in study.design.seeds]
        for arm in study.design.arms
    }
    if name and name not in arms:
        raise ConfigError(
            f"{name}: no arm of this name in {study.folder}; expected one of: "
            f"{cut(', '.join(arms))}."
        )
    recorded = _recorded(study, arms)
    numbers = {
        number.id: number
        for number in _numbers(study, arms, recorded)
        if not name or number.id in (f"{name}.mean", f"{name}.difference")
    }
    return AskedArms(study, arms, recorded, numbers)


def verify_study(asked: AskedArms, scratch: Laboratory, *, cheap: bool = False) -> list[Verified]:
    """Run again what numbers of a study stand on, in an empty laboratory.

    Args:
        asked: As `read_arms` returns it.
        scratch: Empty, or that of an earlier call that was interrupted.
        cheap: Whether only the quickest run of each number is run again.
    """
    before, numbers = asked.recorded, asked.numbers
    again = {key: to_run(number, before, cheap=cheap) for key, number in numbers.items()}
    tasks = list(dict.fromkeys(task for wanted in again.values() for task in wanted))
    rerun = Rerun.of(tasks, before, scratch)
    known = before | rerun.fresh
    now = {number.id: number.value for number in _numbers(asked.study, asked.arms, known)}
    return [rerun.verified(key, number, now[key], again[key]) for key, number in numbers.items()]


def _numbers(study: Study, arms: Mapping[str, list[Train]], known: Evidence) -> list[Number]:
    metric = study.record.metric
    first, *_ = arms
    found = compare(known.outcomes(arms, metric), metric, delta=study.record.delta)
    means = [
        Number.mean(f"{arm}.mean", known.values(tasks, metric), of=tasks)
        for arm, tasks in arms.items()
    ]
    return means + [
        Number.difference(f"{each.arm}.difference", each, of=[*arms[first], *arms[each.arm]])
        for each in found
    ]


def _recorded(study: Study, arms: Mapping[str, list[Train]]) -> Evidence:
    """Return what the runs of the study came to, as their folders say."""
    records = []
    for arm, runs in study.outcomes().items():
        for task, run in zip(arms[arm], runs, strict=True):
            if run.state not in ("finished", "diverged"):
                raise RunError(
                    f"{study.folder}: {arm}, seed {run.seed}, has not ended; give the command of "
                    "the study again first."
                )
            manifest = RunFolder.inside(study.lab / "cells", run.key).read_manifest()
            record = Record(
                key=run.key,
                task=task.model_dump(mode="json"),
                state="done" if run.state == "finished" else "diverged",
                values={**run.metrics, "train_s": run.train_s},
                error=run.error,
                code_sha256=study.record.code_sha256,
                made={fact: manifest[fact] for fact in _MADE if fact in manifest},
            )
            records.append(record)
    return Evidence(records)
