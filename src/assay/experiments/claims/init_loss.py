"""Near ln V at random initialisation: true of narrow logits, whatever else is wrong."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part
from assay.experiments.claims.init_grid import (
    DELTA,
    as_written,
    cells,
    excess_of,
    faulty,
    mean_of,
    search,
)
from assay.experiments.claims.init_pictures import boundary_figure, grid_table, law_figure
from assay.experiments.evidence import Evidence
from assay.experiments.statistics import holm, p_equivalent
from assay.experiments.tasks import Task


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
    written = as_written(budget)
    every, some = all(near.values()), any(near.values())
    return Judgement(
        "confirmed" if every and not any(fooled[1:]) else "holds only when" if some else "refuted",
        parts=(
            Part("near", "confirmed" if every else "holds only when" if some else "refuted"),
            Part("law", "confirmed" if 0.9 < law.value < 1.1 else "refuted"),
            Part("proof", "refuted" if any(fooled[1:]) else "confirmed"),
            *([Part("appendix", "refuted")] if written else []),
        ),
        numbers=(
            Number("cells_near", sum(near.values())),
            Number("cells", len(near)),
            Number("std", float(np.sqrt(low * high)), low, high, of=tuple(lines.values())),
            Number("std_law", float(np.sqrt(2 * DELTA / 64))),
            law,
            *(mean_of(evidence, f"fault_{n}", t) for n, t in enumerate(faulty(budget).values())),
            *(mean_of(evidence, f"gpt2_{n}", t, "loss_nats") for n, t in written.items()),
        ),
        tables=(grid_table(evidence, grid, near),),
        figures=(law_figure(evidence, grid), boundary_figure(evidence, lines)),
    )


def _near(samples: Sequence[np.ndarray[Any, np.dtype[np.float64]]]) -> list[bool]:
    """Return for each sample whether it is equivalent to zero, over the whole family."""
    return [p < 0.05 for p in holm([p_equivalent(sample, DELTA) for sample in samples])]


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


CLAIM = Claim(
    id="init-loss",
    section="3.2, 4.1",
    tasks=tasks,
    judge=judge,
    sources=(Citation("Karpathy 2022", "https://github.com/karpathy/nanoGPT", "init of GPT-2"),),
)
