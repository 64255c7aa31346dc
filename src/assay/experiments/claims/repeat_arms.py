"""One training, done again with one thing changed each time."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from assay.config import RunConfig
from assay.experiments.claim import Budget
from assay.experiments.claims.bases import base
from assay.experiments.tasks.repeat import Change, Repeat, RepeatPlain

STEPS: Mapping[Budget, int] = {"quick": 12, "laptop": 30, "full": 200}
_AGAIN: tuple[Change, ...] = ("nothing", "process", "torch-seed", "looks")
_EXECUTION: tuple[Change, ...] = ("threads", "compile", "micro-batches", "blocks", "bf16")


class Tasks(NamedTuple):
    """What is asked for at a budget, by what is changed."""

    again: dict[Change, Repeat]
    execution: dict[Change, Repeat]
    resumed: Repeat
    weights_only: Repeat
    other_seed: Repeat
    exact: Repeat
    plain: RepeatPlain
    plain_disturbed: RepeatPlain


def named(budget: Budget) -> Tasks:
    """Return the tasks; the quick budget compiles nothing, which alone would take all its time."""
    fields = {"train.steps": STEPS[budget], "train.compile": "off", "train.device": "cpu"}
    run = base(budget, changes=fields)
    in_grains = base(budget, changes=fields | {"train.exact_rows": 1})
    execution = [way for way in _EXECUTION if way != "compile" or budget != "quick"]
    steps = STEPS[budget]
    return Tasks(
        again=_changed(run, _AGAIN),
        execution=_changed(run, execution),
        resumed=Repeat(run=run, change="resumed"),
        weights_only=Repeat(run=run, change="resumed-weights-only"),
        other_seed=Repeat(run=run, change="seed"),
        exact=Repeat(run=in_grains, change="micro-batches"),
        plain=RepeatPlain(draws_between=0, steps=steps, width=64),
        plain_disturbed=RepeatPlain(draws_between=1, steps=steps, width=64),
    )


def _changed(run: RunConfig, changes: Sequence[Change]) -> dict[Change, Repeat]:
    return {change: Repeat(run=run, change=change) for change in changes}
