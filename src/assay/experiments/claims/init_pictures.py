"""Table and figures of the claim on the loss before training."""

from collections.abc import Mapping

import numpy as np

from assay.experiments.claim import Figure, Number, Table
from assay.experiments.claims.init_grid import DELTA, Place, excess_of, mean_of
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task

_FLOOR = 1e-4  # nats: what a logarithmic axis shows of less


def grid_table(evidence: Evidence, grid: Mapping[Place, Task], near: Mapping[Place, bool]) -> Table:
    """Return the excess over ln V of every cell."""
    rows = tuple(
        (
            init, "tied" if tied else "untied", scale, str(d_model), str(n_layers),
            mean_of(evidence, f"excess_{place}", task),
            Number.mean(f"p_{place}", evidence[task].values["p_current"], of=[task]),
            "yes" if near[cell] else "no",
        )
        for place, (cell, task) in enumerate(grid.items())
        for init, tied, scale, d_model, n_layers in [cell]
    )  # fmt: skip
    columns = ("init", "tying", "scale", "d", "layers", "excess", "p", "near")
    return Table("grid", columns, rows, {"excess": ".3f", "p": ".4f"})


def law_figure(evidence: Evidence, grid: Mapping[Place, Task]) -> Figure:
    """Draw the excess of every cell over half the variance of its logits."""
    rows = tuple(
        {
            "half_variance": float(np.mean(evidence[task].values["logit_variance"])) / 2,
            "excess": max(_FLOOR, float(excess_of(evidence, task).mean())),
            "init": init,
            "cell": f"{'tied' if tied else 'untied'}, {scale}, d {d_model}, L {n_layers}",
        }
        for (init, tied, scale, d_model, n_layers), task in grid.items()
    )
    return Figure(
        "law", "points", rows, "half_variance", "excess", "init", log="x y", diagonal=True
    )


def boundary_figure(evidence: Evidence, lines: Mapping[float, Task]) -> Figure:
    """Draw the excess over the standard deviation of the embedding, where it was searched."""
    found = {std: mean_of(evidence, "", task) for std, task in sorted(lines.items())}
    rows = tuple(
        {
            "std": std,
            "excess": max(_FLOOR, mean.value),
            "low": max(_FLOOR, mean.low or 0.0),
            "high": max(_FLOOR, mean.high or 0.0),
        }
        for std, mean in found.items()
    )
    return Figure(
        "boundary", "lines", rows, "std", "excess",
        low="low", high="high", log="x y", rules=(("y", DELTA),),
    )  # fmt: skip
