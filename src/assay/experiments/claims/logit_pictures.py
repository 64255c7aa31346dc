"""Table and figure of the claim on the logits' scale."""

from collections.abc import Mapping, Sequence

import numpy as np

from assay.experiments.claim import Budget, Figure, Number, Table
from assay.experiments.claims.logit_arms import arms, at_start
from assay.experiments.claims.tuned import best_rate
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task


def losses_table(budget: Budget, evidence: Evidence, runs: Mapping[str, Sequence[Task]]) -> Table:
    """Return rate and loss of every arm."""
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


def variance_figure(budget: Budget, evidence: Evidence) -> Figure:
    """Draw the variance of the logits before training over the width."""
    rows = tuple(
        {
            "d": width,
            "variance": float(np.mean(evidence[task].values["logit_variance"])),
            "s": scale,
        }
        for (scale, width), task in at_start(budget).items()
    )
    return Figure("variance", "lines", rows, "d", "variance", "s", log="x y")
