"""LayerNorm in both places and no norm, held together over the grid and through many layers."""

import math

from assay.experiments.claim import Budget
from assay.experiments.claims.changes import against
from assay.experiments.claims.rates import GRIDS, Cell
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.inside import DepthAtStart

INITS = ("gpt2", "torch")
DEEP = {"quick": 4, "laptop": 12, "full": 24}
PRE, POST, NONE = "layer-pre", "layer-post", "none"
_DELTA_NATS = 0.05
_DELTA_TILT = 0.1  # of ln(largest / smallest): a tenth of the ratio


def cells_of(budget: Budget) -> list[Cell]:
    """Return every arm at every depth."""
    grid = GRIDS[budget]
    return [Cell(budget, arm, depth) for depth in grid.depths for arm in grid.arms]


def looks_deep(budget: Budget, arm: str, init: str) -> list[DepthAtStart]:
    """Return the looks through many layers at step 0, under each seed."""
    return Cell(budget, arm, DEEP[budget]).starts(init=init)


def compared(budget: Budget, evidence: Evidence, depth: int, what: str) -> dict[str, Comparison]:
    """Compare both placements of LayerNorm with no norm at one depth."""
    cells = {arm: Cell(budget, arm, depth) for arm in (NONE, PRE, POST)}
    if what == "sensitivity":
        return against(
            {arm: cell.sensitivities(evidence) for arm, cell in cells.items()}, delta=_DELTA_NATS
        )
    rates = GRIDS[budget].rates
    return against(
        {arm: cell.best(evidence, rates) for arm, cell in cells.items()}, delta=_DELTA_NATS
    )


def tilts(budget: Budget, evidence: Evidence, init: str) -> dict[str, Comparison]:
    """Compare how unequal the gradients of the layers are, |ln(largest / smallest)|, at step 0."""
    values = {
        arm: [_tilt(evidence, task) for task in looks_deep(budget, arm, init)]
        for arm in (NONE, PRE, POST)
    }
    return against(values, delta=_DELTA_TILT)


def _tilt(evidence: Evidence, task: DepthAtStart) -> float:
    norms = evidence[task].values["gradient_norms"]
    finite = [norm for norm in norms if norm]
    return math.log(max(finite) / min(finite)) if len(finite) == len(norms) else math.nan
