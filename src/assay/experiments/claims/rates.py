"""A grid of norms, placements, depths and learning rates, which two claims look at.

It trains as the article's code does: AdamW, no clipping, no warm-up unless asked for. What
stabilises training besides a norm would hide what the norm does.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean
from typing import Any

from assay.config import RunConfig
from assay.experiments.claim import Budget
from assay.experiments.claims.bases import base
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.inside import DepthAtStart
from assay.experiments.tasks.train import Train
from assay.measure.sensitivity import lr_sensitivity
from assay.schema import override

VOCAB = 85
"""Characters of the base's text."""
_SCALE = {"affine": "scale", "eps": 1e-5}
_NORMS: Mapping[str, Mapping[str, Any]] = {
    name: {"kind": name, **_SCALE} for name in ("layer", "sigma", "rms")
}
ARMS: Mapping[str, Mapping[str, Any]] = {
    "none": {"model.norm": {"kind": "none"}, "model.block": "pre"},
} | {
    f"{norm}-{block}": {"model.norm": fields, "model.block": block}
    for norm, fields in _NORMS.items()
    for block in ("pre", "post")
}
"""Without a norm, pre and post are one function, so `none` is there once."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How much of it a budget buys."""

    arms: tuple[str, ...]
    depths: tuple[int, ...]
    n_rates: int
    seeds: int
    steps: int

    @property
    def rates(self) -> tuple[float, ...]:
        """Rates from 3e-4 to 3e-1, even in their logarithm: the range of Wortsman et al."""
        last = self.n_rates - 1
        return tuple(float(f"{3e-4 * 1000 ** (i / last):.2g}") for i in range(self.n_rates))


GRIDS: Mapping[Budget, Grid] = {
    "quick": Grid(("none", "layer-pre", "layer-post"), (2,), 3, 3, 30),
    "laptop": Grid(tuple(ARMS), (2, 6), 5, 3, 100),
    "full": Grid(tuple(ARMS), (4, 12, 24), 7, 5, 2000),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One arm at one depth."""

    budget: Budget
    arm: str
    depth: int
    warm: bool = False

    def config(self, rate: float, seed: int) -> RunConfig:
        """Return the config of one run."""
        steps = GRIDS[self.budget].steps
        changes = {
            **ARMS[self.arm],
            "model.n_layers": self.depth,
            "model.vocab_size": VOCAB,
            "train.optimizer.lr": rate,
            "train.clip_norm": None,
            "train.schedule": {"kind": "cosine", "warmup_steps": steps // 5 if self.warm else 0},
            "train.steps": steps,
            "eval.every": steps,
            "eval.final_max_tokens": 16_384,
        }
        return base(self.budget, seed=seed, changes=changes)

    def runs(self, rate: float) -> list[Train]:
        """Return the training at one rate under each seed."""
        return list(_runs(self, rate))

    def runs_at(self, rates: Sequence[float]) -> list[Train]:
        """Return the training at each of these rates under each seed."""
        return [run for rate in rates for run in self.runs(rate)]

    def starts(self, depth: int | None = None, init: str | None = None) -> list[DepthAtStart]:
        """Return the looks at step 0 under each seed, at another depth or init where asked."""
        return list(_starts(replace(self, depth=depth or self.depth), init))

    def points(self, evidence: Evidence, rates: Sequence[float]) -> list[list[tuple[float, float]]]:
        """Return (rate, loss) for each seed; a run that diverged has no number."""
        losses = [evidence.values(self.runs(rate), "val_loss_nats") for rate in rates]
        return [list(zip(rates, each, strict=True)) for each in zip(*losses, strict=True)]

    def initial(self, evidence: Evidence) -> list[float]:
        """Return the loss before training, in nats, for each seed."""
        return evidence.values(self.starts(), "loss_nats")

    def sensitivities(
        self, evidence: Evidence, *, best_nats: Sequence[float] | None = None
    ) -> list[float]:
        """Return the learning-rate sensitivity for each seed, held to `best_nats` where given."""
        points = self.points(evidence, GRIDS[self.budget].rates)
        held: Sequence[float | None] = best_nats or [None] * len(points)
        return [
            lr_sensitivity(each, start, best_nats=best)
            for each, start, best in zip(points, self.initial(evidence), held, strict=True)
        ]

    def best(self, evidence: Evidence, rates: Sequence[float]) -> list[float]:
        """Return the least loss over the rates for each seed; the initial one where none ended."""
        return [
            min([start, *(loss for _, loss in each if loss == loss)])
            for each, start in zip(
                self.points(evidence, rates), self.initial(evidence), strict=True
            )
        ]

    def fails(self, evidence: Evidence, rate: float) -> int:
        """Return how many runs diverged or ended no better than they began."""
        losses = evidence.values(self.runs(rate), "val_loss_nats")
        return sum(
            not loss < start for loss, start in zip(losses, self.initial(evidence), strict=True)
        )

    def mean_loss(self, evidence: Evidence, rate: float) -> float | None:
        """Return the mean loss at a rate, None where a run diverged."""
        losses = evidence.values(self.runs(rate), "val_loss_nats")
        return None if any(loss != loss for loss in losses) else fmean(losses)

    def first_steps(self, evidence: Evidence, rates: Sequence[float]) -> list[int]:
        """Return the step at which each run that diverged first had a number that is none."""
        records = [evidence[task] for rate in rates for task in self.runs(rate)]
        found = [re.search(r"step (\d+)", record.error) for record in records]
        return [int(match[1]) for match in found if match]


@cache  # a judge asks for the same runs again and again
def _runs(cell: Cell, rate: float) -> tuple[Train, ...]:
    return tuple(Train(run=cell.config(rate, seed)) for seed in range(GRIDS[cell.budget].seeds))


@cache
def _starts(cell: Cell, init: str | None) -> tuple[DepthAtStart, ...]:
    model = cell.config(1.0, 0).model
    model = override(model, {"init": init}) if init else model
    return tuple(
        DepthAtStart(model=model, seed=seed, sequences=8, seq_len=32)
        for seed in range(GRIDS[cell.budget].seeds)
    )
