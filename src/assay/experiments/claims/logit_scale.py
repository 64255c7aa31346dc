"""Dividing logits by √d: what it does to their variance, and to the loss in the end."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from assay.experiments.claim import Budget, Claim, Figure, Judgement, Number, Part, Table
from assay.experiments.claims.bases import trained
from assay.experiments.claims.init_grid import panel
from assay.experiments.claims.tuned import best_rate, tuned
from assay.experiments.claims.verdicts import above, below, of_answers, of_words, whole
from assay.experiments.compare import Comparison, compare
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.source import Source

_WIDTHS = {"quick": (16, 32, 64), "laptop": (16, 32, 64, 128, 256), "full": (16, 64, 256, 1024)}
_SCALES = ("none", "inv_sqrt_d")
_DELTA = 0.02  # nats
_WIDE, _NARROW = {"kind": "gaussian", "std": 1.0}, {"kind": "gpt2"}
_PAIRS = {"wide": _WIDE, "narrow": _NARROW}


def at_start(budget: Budget) -> dict[tuple[str, int], Task]:
    """Return the panels of the appendix's initialisation over widths, plain and scaled."""
    return {
        (scale, width): panel(budget, {"logit_scale": scale}, (width, 2))
        for scale in _SCALES
        for width in _WIDTHS[budget]
    }


def arms() -> dict[str, Mapping[str, Any]]:
    """Return what is trained: a wide and a narrow initialisation, plain and scaled."""
    return {
        f"{name} {scale}": {"model.init": init, "model.logit_scale": scale}
        for name, init in _PAIRS.items()
        for scale in _SCALES
    }


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Ask for the panels and the tuning runs, then for each arm at its own best rate."""
    wanted: list[Task] = [*at_start(budget).values()]
    for changes in arms().values():
        trials, settled = tuned(budget, changes, evidence)
        wanted += trials
        wanted += [] if settled is None else trained(budget, settled)
    return wanted


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Fit variance to width on log-log axes; compare scaled with plain, each at its own rate."""
    slopes = {scale: _slope(budget, evidence, scale) for scale in _SCALES}
    runs = {arm: _runs(budget, changes, evidence) for arm, changes in arms().items()}
    found = {name: _compared(runs, name, evidence) for name in _PAIRS}
    flat = slopes["inv_sqrt_d"]
    stable = below(flat, 0.1) and above(flat, -0.1)
    parts = (
        Part("start", of_answers([stable])),
        *(Part(name, of_words([comparison.word], "lower")) for name, comparison in found.items()),
    )
    return Judgement(
        whole([part.verdict for part in parts]),
        parts=parts,
        numbers=(
            *slopes.values(),
            *(
                Number.difference(
                    f"{name}_difference", comparison, unit="nats",
                    of=[*runs[f"{name} none"], *runs[f"{name} inv_sqrt_d"]],
                )
                for name, comparison in found.items()
            ),
        ),
        tables=(_table(budget, evidence, runs),),
        figures=(_figure(budget, evidence),),
    )  # fmt: skip


def _runs(budget: Budget, changes: Mapping[str, Any], evidence: Evidence) -> list[Task]:
    _, settled = tuned(budget, changes, evidence)
    return [*trained(budget, settled or changes)]


def _compared(runs: Mapping[str, Sequence[Task]], name: str, evidence: Evidence) -> Comparison:
    pair = {arm: runs[arm] for arm in (f"{name} none", f"{name} inv_sqrt_d")}
    (found,) = compare(
        evidence.outcomes(pair, "val_loss_nats"),
        "val_loss_nats",
        delta=_DELTA,
        alpha=0.05 / len(_PAIRS),
    )
    return found


def _slope(budget: Budget, evidence: Evidence, scale: str) -> Number:
    """Return by which power of the width the variance of the logits grows."""
    used = [(width, task) for (s, width), task in at_start(budget).items() if s == scale]
    logs = [
        (math.log(width), math.log(variance))
        for width, task in used
        for variance in evidence[task].values["logit_variance"]
    ]
    x, y = np.array(logs).T
    fit = stats.linregress(x, y)
    reach = float(stats.t.ppf(0.975, len(x) - 2) * fit.stderr)
    slope = float(fit.slope)
    of = tuple(task for _, task in used)
    return Number(f"slope_{scale}", slope, slope - reach, slope + reach, of=of)


def _table(budget: Budget, evidence: Evidence, runs: Mapping[str, Sequence[Task]]) -> Table:
    rows = tuple(
        (
            arm,
            f"{best_rate(budget, arms()[arm], evidence):.3g}",
            Number.mean(
                f"loss_{place}", evidence.values(trainings, "val_loss_nats"),
                of=trainings, unit="nats",
            ),
        )
        for place, (arm, trainings) in enumerate(runs.items())
    )  # fmt: skip
    return Table("losses", ("arm", "rate", "loss"), rows, {"loss": ".3f"})


def _figure(budget: Budget, evidence: Evidence) -> Figure:
    rows = tuple(
        {
            "d": width,
            "variance": float(np.mean(evidence[task].values["logit_variance"])),
            "s": scale,
        }
        for (scale, width), task in at_start(budget).items()
    )
    return Figure("variance", "lines", rows, "d", "variance", "s", log="x y")


CLAIM = Claim(
    id="logit-scale",
    section="2.4",
    tasks=tasks,
    judge=judge,
    sources=(
        Source("Chowdhery et al. 2022", "arXiv:2204.02311", "sec. 2 (shared embeddings)"),
        Source("Vaswani et al. 2017", "arXiv:1706.03762", "sec. 3.4"),
    ),
)
