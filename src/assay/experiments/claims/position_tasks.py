"""Copy, reverse and addition beyond the lengths trained on: does no position extrapolate best?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from assay.data.synthetic import TASKS, TRAINED_LENGTH
from assay.data.synthetic import Task as Problem
from assay.experiments.claim import Budget, Claim, Figure, Judgement, Number, Part, Table, Verdict
from assay.experiments.claims.bases import base, seeds
from assay.experiments.claims.changes import against, is_lower
from assay.experiments.claims.position_order import ENCODINGS
from assay.experiments.claims.verdicts import all_of, whole
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.position import Answers
from assay.measure.positionwise import Share
from assay.source import Source

_LENGTHS = (1, 2, 4, 6, 8, 9, 10, 12, 16, 24)
_WITHIN = tuple(length for length in _LENGTHS if length <= TRAINED_LENGTH)
_BEYOND = (9, 10, 12)
_N = 200
_DELTA_SHARE = 0.05
_LEARNT = 0.5
_STEPS: Mapping[Budget, int] = {"quick": 20, "laptop": 600, "full": 5000}
# What learns to copy soonest: short windows, many of them, normalised queries and keys, Muon. Found
# on rotary positions, so it is theirs if anybody's; the base does not learn it in thrice the steps.
_RECIPE = {
    "model.norm": "rms",
    "model.mixer.qk_norm": True,
    "model.n_layers": 3,
    "model.max_seq_len": 32,
    "train.batch_size": 32,
    "train.optimizer": {"kind": "muon", "lr": 1e-2, "adamw_lr": 1.5e-2},
    "eval.final_max_tokens": 4096,
}
_SEEDS = {"addition": 3}  # no model of this size learns it in these steps: see the limits
Asked = Mapping[str, Mapping[str, Sequence[Answers]]]


def asked(budget: Budget) -> Asked:
    """Return, by task and encoding, the questions to the models of each seed."""
    problems: tuple[Problem, ...] = ("copy",) if budget == "quick" else TASKS
    return {
        problem: {kind: _asked(budget, problem, kind) for kind in ENCODINGS} for problem in problems
    }


def _asked(budget: Budget, problem: Problem, kind: str) -> list[Answers]:
    steps = _STEPS[budget]
    changes = {"data.text": f"task:{problem}", "model.position": kind, **_RECIPE}
    changes |= {"train.steps": steps, "eval.every": steps}
    return [
        Answers(run=base(budget, seed=seed, changes=changes), task=problem, lengths=_LENGTHS, n=_N)
        for seed in seeds(budget)[: _SEEDS.get(problem)]
    ]


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Ask every encoding's models every task."""
    every = asked(budget)
    return [task for by_kind in every.values() for each in by_kind.values() for task in each]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Confirm if models without positions answer longer problems more often than all others."""
    found: Found = {
        problem: {kind: _Answered.read(evidence, each) for kind, each in by_kind.items()}
        for problem, by_kind in asked(budget).items()
    }
    parts = tuple(Part(problem, _verdict(arms)) for problem, arms in found.items())
    numbers = {
        name: arm.number(name, lengths)
        for problem, arms in found.items()
        for kind, arm in arms.items()
        for name, lengths in (
            (f"{problem}_{kind}_within", _WITHIN),
            (f"{problem}_{kind}", _BEYOND),
        )
    }
    judged = [part.verdict for part in parts if part.verdict != "not testable here"]
    return Judgement(
        whole(judged) if judged else "not testable here",
        parts,
        numbers=tuple(numbers.values()),
        tables=(_table(found, numbers),),
        figures=(_figure(found),),
    )


@dataclass(frozen=True, slots=True)
class _Answered:
    """What the models of one encoding made of a task: right answers by length, seed by seed."""

    tasks: Sequence[Answers]
    right: Sequence[Mapping[int, int]]

    @classmethod
    def read(cls, evidence: Evidence, tasks: Sequence[Answers]) -> "_Answered":
        """Read the records; a length at which a model is undefined is left out."""
        found = [evidence[task].values.get("right", {}) for task in tasks]
        defined = [{int(n): r for n, r in each.items() if r is not None} for each in found]
        return cls(tasks, defined)

    def shares(self, lengths: Sequence[int]) -> list[float]:
        """Return the share of right answers under each seed, NaN where nothing is defined."""
        defined = [[each[n] for n in lengths if n in each] for each in self.right]
        return [sum(right) / (_N * len(right)) if right else math.nan for right in defined]

    def number(self, name: str, lengths: Sequence[int]) -> Number:
        """Return the mean share; the interval is the wider of Student's and, pooled, Wilson's."""
        mean = Number.mean(name, self.shares(lengths), of=self.tasks)
        right = [each[n] for each in self.right for n in lengths if n in each]
        if not right:
            return mean
        pooled = Share.of(sum(right), _N * len(right))
        low = min(pooled.low, mean.value if mean.low is None else mean.low)
        high = max(pooled.high, mean.value if mean.high is None else mean.high)
        return replace(mean, low=max(0.0, low), high=min(1.0, high))


Found = Mapping[str, Mapping[str, _Answered]]


def _verdict(arms: Mapping[str, _Answered]) -> Verdict:
    """Judge a task among the encodings that learnt it; no judgement where `none` did not."""
    learnt = [kind for kind, arm in arms.items() if arm.number("", _WITHIN).value >= _LEARNT]
    if "none" not in learnt or len(learnt) < 2:
        return "not testable here"
    beyond = {kind: arms[kind].shares(_BEYOND) for kind in learnt}  # `none` is named first
    return all_of([is_lower(each) for each in against(beyond, delta=_DELTA_SHARE).values()])


def _table(found: Found, numbers: Mapping[str, Number]) -> Table:
    rows = tuple(
        (problem, kind, numbers[f"{problem}_{kind}_within"], numbers[f"{problem}_{kind}"])
        for problem, arms in found.items()
        for kind in arms
    )
    columns = ("task", "encoding", "within", "beyond")
    return Table("answers", columns, rows, dict.fromkeys(columns, ".2f"))


def _figure(found: Found) -> Figure:
    points = [
        (problem, kind, length, arm.number("", (length,)))
        for problem, arms in found.items()
        for kind, arm in arms.items()
        for length in _LENGTHS
    ]
    rows = tuple(
        {
            "length": length,
            "share": number.value,
            "low": number.low,
            "high": number.high,
            "encoding": kind,
            "task": problem,
        }
        for problem, kind, length, number in points
        if math.isfinite(number.value)
    )
    return Figure(
        "by_length", "lines", rows, "length", "share", "encoding", "low", "high", facet="task",
        rules=(("x", TRAINED_LENGTH),),
    )  # fmt: skip


CLAIM = Claim(
    id="position-tasks",
    section="5.1",
    tasks=tasks,
    judge=judge,
    sources=(Source("Kazemnejad et al. 2023", "arXiv:2305.19466", "sec. 4"),),
)
