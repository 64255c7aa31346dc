"""The weights of each component, untrained and trained: do they stay normal?"""

from collections.abc import Sequence
from statistics import fmean

from assay.experiments.claim import Budget, Claim, Figure, Judgement, Number, Part, Table
from assay.experiments.claims.bases import trained
from assay.experiments.claims.verdicts import above, below, of_answers, whole
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.inside import WeightShapes

COMPONENTS = ("embed", "position", "q", "k", "v", "out", "up", "down")
_STATES = ("untrained", "trained")
_MOST = 0.5  # of excess kurtosis, either way, for weights to be called normal


def looks(budget: Budget) -> list[WeightShapes]:
    """Return the look at the base under each seed."""
    return [WeightShapes(run=task.run) for task in trained(budget)]


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Describe the weights of the base."""
    return looks(budget)


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Hold the excess kurtosis of each component to a bound, before and after training."""
    kurtosis = {
        (state, component): _mean(budget, evidence, state, component, "excess_kurtosis")
        for state in _STATES
        for component in COMPONENTS
    }
    growth = {component: _growth(budget, evidence, component) for component in COMPONENTS}
    parts = tuple(
        Part(state, of_answers([_normal(kurtosis[state, each]) for each in COMPONENTS]))
        for state in _STATES
    )
    trained_ones = [kurtosis["trained", each] for each in COMPONENTS]
    most = max(COMPONENTS, key=lambda each: growth[each].value)
    return Judgement(
        whole([parts[1].verdict]),
        parts,
        numbers=(
            Number("bound", _MOST),
            _as("highest", max(trained_ones, key=lambda each: each.value)),
            _as("lowest", min(trained_ones, key=lambda each: each.value)),
            _as("untrained_most", max((kurtosis["untrained", c] for c in COMPONENTS), key=_size)),
            _as("most_growth", growth[most]),
            _as("least_growth", min(growth.values(), key=lambda each: each.value)),
        ),
        tables=(_table(budget, evidence, kurtosis, growth),),
        figures=(_figure(kurtosis),),
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


def _size(number: Number) -> float:
    return abs(number.value)


def _as(name: str, found: Number) -> Number:
    return Number(name, found.value, found.low, found.high, found.level, found.unit, found.of)


def _table(
    budget: Budget,
    evidence: Evidence,
    kurtosis: dict[tuple[str, str], Number],
    growth: dict[str, Number],
) -> Table:
    rows: list[tuple[str | Number, ...]] = [
        (
            component,
            *(_mean(budget, evidence, state, component, "std") for state in _STATES),
            growth[component],
            *(kurtosis[state, component] for state in _STATES),
            *(_mean(budget, evidence, state, component, "normal_distance") for state in _STATES),
        )
        for component in COMPONENTS
    ]
    names = [f"{field}_{state}" for field in ("kurtosis", "distance") for state in _STATES]
    columns = ("component", "std_untrained", "std_trained", "growth", *names)
    spec = {"std_untrained": ".4f", "std_trained": ".4f", "growth": ".2f"}
    return Table("components", columns, tuple(rows), spec | dict.fromkeys(names, ".3f"))


def _figure(kurtosis: dict[tuple[str, str], Number]) -> Figure:
    rows = tuple(
        {"component": component, "kurtosis": found.value, "low": found.low, "high": found.high,
         "state": state}
        for (state, component), found in kurtosis.items()
    )  # fmt: skip
    return Figure(
        "kurtosis",
        "dots",
        rows,
        "kurtosis",
        "component",
        "state",
        low="low",
        high="high",
        rules=(("x", -_MOST), ("x", _MOST)),
    )


CLAIM = Claim(id="weights", section="beyond", tasks=tasks, judge=judge)
