"""Table and figure of the claim on pre-norm and post-norm."""

from collections.abc import Mapping, Sequence

from assay.experiments.claim import Figure, Number, Table
from assay.experiments.claims.rates import Cell
from assay.experiments.evidence import Evidence

Cells = Mapping[int, Mapping[str, Cell]]
"""By depth and arm."""


def arms_table(evidence: Evidence, cells: Cells, rates: Sequence[float]) -> Table:
    """Return the best loss of every arm at every depth, and how often it failed."""
    rows = tuple(
        (
            str(depth),
            arm,
            Number.mean(f"best_{arm}_{depth}", cell.best(evidence, rates), of=cell.runs_at(rates)),
            f"{sum(cell.fails(evidence, rate) for rate in rates)} / {len(cell.runs_at(rates))}",
        )
        for depth, arms in cells.items()
        for arm, cell in arms.items()
    )
    return Table("arms", ("depth", "arm", "best", "failed"), rows, {"best": ".3f"})


def rates_figure(evidence: Evidence, cells: Cells, rates: Sequence[float]) -> Figure:
    """Draw the loss over the rates, a panel for each depth."""
    rows = tuple(
        {
            "rate": rate,
            "loss": cell.mean_loss(evidence, rate),
            "arm": arm,
            "depth": f"L = {depth}",
        }
        for depth, arms in cells.items()
        for arm, cell in arms.items()
        for rate in rates
    )
    return Figure("rates", "lines", rows, "rate", "loss", "arm", facet="depth", log="x")
