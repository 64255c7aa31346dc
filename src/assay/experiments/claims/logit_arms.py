"""What the claim on the logits' scale looks at: panels over widths, and arms at their own rates."""

from collections.abc import Mapping
from typing import Any

from assay.experiments.claim import Budget
from assay.experiments.claims.bases import trained
from assay.experiments.claims.init_grid import panel
from assay.experiments.claims.tuned import tuned
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task

SCALES = ("none", "inv_sqrt_d")
PAIRS: Mapping[str, Mapping[str, Any]] = {
    "wide": {"kind": "gaussian", "std": 1.0},
    "narrow": {"kind": "gpt2"},
}
"""The initialisations under which plain and scaled are trained."""
_WIDTHS = {"quick": (16, 32, 64), "laptop": (16, 32, 64, 128, 256), "full": (16, 64, 256, 1024)}


def at_start(budget: Budget) -> dict[tuple[str, int], Task]:
    """Return the panels of the appendix's initialisation over widths, plain and scaled."""
    return {
        (scale, width): panel(budget, {"logit_scale": scale}, (width, 2))
        for scale in SCALES
        for width in _WIDTHS[budget]
    }


def arms() -> dict[str, Mapping[str, Any]]:
    """Return what is trained: a wide and a narrow initialisation, plain and scaled."""
    return {
        f"{name} {scale}": {"model.init": init, "model.logit_scale": scale}
        for name, init in PAIRS.items()
        for scale in SCALES
    }


def runs(budget: Budget, changes: Mapping[str, Any], evidence: Evidence) -> list[Task]:
    """Return the trainings of an arm at its best rate, which must be known."""
    _, settled = tuned(budget, changes, evidence)
    return [*trained(budget, settled or changes)]
