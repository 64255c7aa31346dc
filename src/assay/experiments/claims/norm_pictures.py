"""Table and figures of the claim on LayerNorm."""

from statistics import fmean

from assay.experiments.claim import Budget, Figure, Number, Table
from assay.experiments.claims.norm_grid import INITS, cells_of, looks_deep
from assay.experiments.claims.rates import GRIDS, Cell
from assay.experiments.evidence import Evidence


def grid_table(budget: Budget, evidence: Evidence) -> Table:
    """Return sensitivity, best loss and failures of every cell."""
    grid = GRIDS[budget]
    rows = []
    for cell in cells_of(budget):
        of = cell.runs_at(grid.rates)
        peers = [Cell(budget, arm, cell.depth).best(evidence, grid.rates) for arm in grid.arms]
        best = [min(each) for each in zip(*peers, strict=True)]
        steps = cell.first_steps(evidence, grid.rates)
        name = f"{cell.arm}_{cell.depth}"
        own, held = (cell.sensitivities(evidence, best_nats=b) for b in (None, best))
        rows.append(
            (
                str(cell.depth),
                cell.arm,
                Number.mean(f"sensitivity_{name}", own, of=of),
                Number.mean(f"regret_{name}", held, of=of),
                Number.mean(f"best_{name}", cell.best(evidence, grid.rates), of=of),
                f"{sum(cell.fails(evidence, rate) for rate in grid.rates)} / {len(of)}",
                f"{len(steps)}" + (f" ({min(steps)}-{max(steps)})" if steps else ""),
            )
        )
    columns = ("depth", "arm", "sensitivity", "regret", "best", "failed", "diverged")
    spec = {"sensitivity": ".2f", "regret": ".2f", "best": ".3f"}
    return Table("grid", columns, tuple(rows), spec)


def heat_figure(budget: Budget, evidence: Evidence) -> Figure:
    """Draw the mean loss of every cell at every rate that no run diverged at."""
    rows = tuple(
        {"rate": f"{rate:g}", "arm": cell.arm, "depth": f"L = {cell.depth}", "loss": loss}
        for cell in cells_of(budget)
        for rate in GRIDS[budget].rates
        if (loss := cell.mean_loss(evidence, rate)) is not None
    )
    return Figure("heat", "heat", rows, "rate", "arm", value="loss", facet="depth")


def layer_figures(budget: Budget, evidence: Evidence) -> tuple[Figure, Figure]:
    """Return gradient norm and scale of the stream by layer, means over seeds."""
    drawn = []
    for figure, field in (("gradients", "gradient_norms"), ("stream", "stream_rms")):
        rows = []
        for init in INITS:
            for arm in GRIDS[budget].arms:
                found = [evidence[task].values[field] for task in looks_deep(budget, arm, init)]
                for layer, each in enumerate(zip(*found, strict=True)):
                    value = fmean(each) if all(each) else None
                    rows.append({"layer": layer, "value": value, "arm": arm, "init": init})
        drawn.append(
            Figure(figure, "lines", tuple(rows), "layer", "value", "arm", facet="init", log="y")
        )
    return drawn[0], drawn[1]
