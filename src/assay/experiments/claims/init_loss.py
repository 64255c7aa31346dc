"""Near ln V at random initialisation: true of narrow logits, whatever else is wrong."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from assay.experiments.claim import Budget, Claim, Figure, Judgement, Number, Part, Table
from assay.experiments.claims.init_grid import (
    DELTA,
    as_written,
    cells,
    excess_of,
    faulty,
    search,
)
from assay.experiments.evidence import Evidence
from assay.experiments.statistics import holm, p_equivalent
from assay.experiments.tasks import Task
from assay.source import Source

_FLOOR = 1e-4  # nats: what a logarithmic axis shows of less


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Ask for the grid, the faults, the appendix itself, and the next cut of the boundary."""
    fixed = [*cells(budget).values(), *faulty(budget).values(), *as_written(budget).values()]
    return [*fixed, *search(budget, evidence)[0].values()]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Hold every cell to ln V by TOST, the excess to s²/2, and broken models to the same test."""
    grid = cells(budget)
    excess = {cell: excess_of(evidence, task) for cell, task in grid.items()}
    near = dict(zip(grid, _near(list(excess.values())), strict=True))
    lines, (low, high) = search(budget, evidence)
    fooled = _near([excess_of(evidence, task) for task in faulty(budget).values()])
    law = _law(evidence, list(grid.values()))
    every, some = all(near.values()), any(near.values())
    return Judgement(
        "confirmed" if every and not any(fooled[1:]) else "holds only when" if some else "refuted",
        parts=(
            Part("near", "confirmed" if every else "holds only when" if some else "refuted"),
            Part("law", "confirmed" if 0.9 < law.value < 1.1 else "refuted"),
            Part("proof", "refuted" if any(fooled[1:]) else "confirmed"),
            *([Part("appendix", "refuted")] if as_written(budget) else []),
        ),
        numbers=(
            Number("cells_near", sum(near.values())),
            Number("cells", len(near)),
            Number("std", float(np.sqrt(low * high)), low, high, of=tuple(lines.values())),
            Number("std_law", float(np.sqrt(2 * DELTA / 64))),
            law,
            *(_mean(evidence, f"fault_{n}", t) for n, t in enumerate(faulty(budget).values())),
            *(_mean(evidence, f"gpt2_{n}", t, "loss_nats") for n, t in as_written(budget).items()),
        ),
        tables=(_table(evidence, grid, near),),
        figures=(_scatter(evidence, grid), _boundary(evidence, lines)),
    )


def _near(samples: Sequence[np.ndarray[Any, np.dtype[np.float64]]]) -> list[bool]:
    """Return for each sample whether it is equivalent to zero, over the whole family."""
    return [p < 0.05 for p in holm([p_equivalent(sample, DELTA) for sample in samples])]


def _mean(evidence: Evidence, name: str, task: Task, of: str = "excess_nats") -> Number:
    return Number.mean(name, evidence[task].values[of], of=[task], unit="nats")


def _law(evidence: Evidence, tasks: Sequence[Task]) -> Number:
    """Return the slope of the excess over s²/2, through zero, where the logits are narrow."""
    x, y = (
        np.concatenate([np.array(evidence[task].values[name], dtype=float) for task in tasks])
        for name in ("logit_variance", "excess_nats")
    )
    narrow = x < 1.0
    x, y = x[narrow] / 2, y[narrow]
    slope = float(x @ y / (x @ x))
    spread = float(np.sqrt(((y - slope * x) ** 2).sum() / (len(x) - 1) / (x @ x)))
    return Number("slope", slope, slope - 2 * spread, slope + 2 * spread, of=tuple(tasks))


def _table(evidence: Evidence, grid: dict[Any, Task], near: dict[Any, bool]) -> Table:
    rows = tuple(
        (
            init, "tied" if tied else "untied", scale, str(d_model), str(n_layers),
            _mean(evidence, f"excess_{place}", task),
            Number.mean(f"p_{place}", evidence[task].values["p_current"], of=[task]),
            "yes" if near[cell] else "no",
        )
        for place, (cell, task) in enumerate(grid.items())
        for init, tied, scale, d_model, n_layers in [cell]
    )  # fmt: skip
    columns = ("init", "tying", "scale", "d", "layers", "excess", "p", "near")
    return Table("grid", columns, rows, {"excess": ".3f", "p": ".4f"})


def _scatter(evidence: Evidence, grid: dict[Any, Task]) -> Figure:
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


def _boundary(evidence: Evidence, lines: dict[float, Task]) -> Figure:
    found = {std: _mean(evidence, "", task) for std, task in sorted(lines.items())}
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


CLAIM = Claim(
    id="init-loss",
    section="3.2, 4.1",
    tasks=tasks,
    judge=judge,
    sources=(Source("Karpathy 2022", "https://github.com/karpathy/nanoGPT", "init of GPT-2"),),
)
