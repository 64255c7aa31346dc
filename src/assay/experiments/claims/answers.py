"""Problems of growing length put to models under each encoding of position, and their answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from assay.data.synthetic import TASKS, TRAINED_LENGTH
from assay.data.synthetic import Task as Problem
from assay.experiments.claim import Budget, Number
from assay.experiments.claims.bases import base, seeds
from assay.experiments.claims.position_arms import ENCODINGS
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.position import Answers
from assay.measure.positionwise import Share

LENGTHS = (1, 2, 4, 6, 8, 9, 10, 12, 16, 24)
WITHIN = tuple(length for length in LENGTHS if length <= TRAINED_LENGTH)
BEYOND = (9, 10, 12)
_N = 200
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
        Answers(run=base(budget, seed=seed, changes=changes), task=problem, lengths=LENGTHS, n=_N)
        for seed in seeds(budget)[: _SEEDS.get(problem)]
    ]


@dataclass(frozen=True, slots=True)
class Answered:
    """What the models of one encoding made of a task: right answers by length, seed by seed."""

    tasks: Sequence[Answers]
    right: Sequence[Mapping[int, int]]

    @classmethod
    def read(cls, evidence: Evidence, tasks: Sequence[Answers]) -> "Answered":
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


Found = Mapping[str, Mapping[str, Answered]]
"""By task and encoding."""
