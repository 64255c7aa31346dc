"""The weights of each component, untrained and trained: do they stay normal?"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from assay.experiments.claim import Budget, Claim, Judgement, Number, Part
from assay.experiments.claims.bases import trained
from assay.experiments.claims.verdicts import above, below, of_answers, whole
from assay.experiments.claims.weights_pictures import (
    STATES,
    components_table,
    kurtosis_figure,
)
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.inside import WeightShapes

COMPONENTS = ("embed", "position", "q", "k", "v", "out", "up", "down")
_FIELDS = ("std", "excess_kurtosis", "normal_distance")
_MOST = 0.5  # of excess kurtosis, either way, for weights to be called normal


def looks(budget: Budget) -> list[WeightShapes]:
    """Return the look at the base under each seed."""
    return [WeightShapes(run=task.run) for task in trained(budget)]


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Describe the weights of the base."""
    return looks(budget)


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Hold the excess kurtosis of each component to a bound, before and after training."""
    shapes = {
        (field, state, component): _mean(budget, evidence, state, component, field)
        for field in _FIELDS
        for state in STATES
        for component in COMPONENTS
    }
    before, after = (
        {each: shapes["excess_kurtosis", state, each] for each in COMPONENTS} for state in STATES
    )
    growth = {component: _growth(budget, evidence, component) for component in COMPONENTS}
    parts = tuple(
        Part(state, of_answers([_normal(each) for each in kurtosis.values()]))
        for state, kurtosis in zip(STATES, (before, after), strict=True)
    )
    return Judgement(
        whole([parts[1].verdict]),
        parts,
        numbers=(
            Number("bound", _MOST),
            replace(max(after.values(), key=_value), id="highest"),
            replace(min(after.values(), key=_value), id="lowest"),
            replace(max(before.values(), key=_size), id="untrained_most"),
            replace(max(growth.values(), key=_value), id="most_growth"),
            replace(min(growth.values(), key=_value), id="least_growth"),
        ),
        tables=(components_table(shapes, growth),),
        figures=(kurtosis_figure(shapes, _MOST),),
    )


def _mean(budget: Budget, evidence: Evidence, state: str, component: str, field: str) -> Number:
    """Return a figure of a component: the mean over its layers, then over seeds."""
    values = [_of(evidence, task, state, component, field) for task in looks(budget)]
    return Number.mean(f"{field}_{state}_{component}", values, of=looks(budget))


def _of(evidence: Evidence, task: WeightShapes, state: str, component: str, field: str) -> float:
    return fmean(each[field] for each in evidence[task].values[state][component])


def _growth(budget: Budget, evidence: Evidence, component: str) -> Number:
    """Return how many times wider training makes a component."""
    values = [
        _of(evidence, task, "trained", component, "std")
        / _of(evidence, task, "untrained", component, "std")
        for task in looks(budget)
    ]
    return Number.mean(f"growth_{component}", values, of=looks(budget))


def _normal(kurtosis: Number) -> bool | None:
    """Return whether it lies within the bound with all of its interval; None if it may not."""
    inside = [above(kurtosis, -_MOST), below(kurtosis, _MOST)]
    return False if False in inside else None if None in inside else True


def _value(number: Number) -> float:
    return number.value


def _size(number: Number) -> float:
    return abs(number.value)


CLAIM = Claim(id="weights", section="beyond", tasks=tasks, judge=judge)
