"""Dividing logits by √d: what it does to their variance, and to the loss in the end."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part
from assay.experiments.claims.bases import trained
from assay.experiments.claims.logit_arms import PAIRS, SCALES, arms, at_start, runs
from assay.experiments.claims.logit_pictures import losses_table, variance_figure
from assay.experiments.claims.tuned import tuned
from assay.experiments.claims.verdicts import above, below, of_answers, of_words, whole
from assay.experiments.compare import Comparison, compare
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task

_DELTA = 0.02  # nats


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
    slopes = {scale: _slope(budget, evidence, scale) for scale in SCALES}
    trainings = {arm: runs(budget, changes, evidence) for arm, changes in arms().items()}
    found = {name: _compared(trainings, name, evidence) for name in PAIRS}
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
                    of=[*trainings[f"{name} none"], *trainings[f"{name} inv_sqrt_d"]],
                )
                for name, comparison in found.items()
            ),
        ),
        tables=(losses_table(budget, evidence, trainings),),
        figures=(variance_figure(budget, evidence),),
    )  # fmt: skip


def _compared(trainings: Mapping[str, Sequence[Task]], name: str, evidence: Evidence) -> Comparison:
    pair = {arm: trainings[arm] for arm in (f"{name} none", f"{name} inv_sqrt_d")}
    (found,) = compare(
        evidence.outcomes(pair, "val_loss_nats"),
        "val_loss_nats",
        delta=_DELTA,
        alpha=0.05 / len(PAIRS),
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


CLAIM = Claim(
    id="logit-scale",
    section="2.4",
    tasks=tasks,
    judge=judge,
    sources=(
        Citation("Chowdhery et al. 2022", "arXiv:2204.02311", "sec. 2 (shared embeddings)"),
        Citation("Vaswani et al. 2017", "arXiv:1706.03762", "sec. 3.4"),
    ),
)
