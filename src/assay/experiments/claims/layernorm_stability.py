"""LayerNorm steadies gradients, lets models be deep and rates be wrong; without it, instability."""

from collections.abc import Sequence

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part, Verdict
from assay.experiments.claims.norm_grid import (
    INITS,
    NONE,
    POST,
    PRE,
    cells_of,
    compared,
    looks_deep,
    tilts,
)
from assay.experiments.claims.norm_numbers import differences, failures, least_gradient
from assay.experiments.claims.norm_pictures import grid_table, heat_figure, layer_figures
from assay.experiments.claims.rates import GRIDS, Cell
from assay.experiments.claims.verdicts import of_words, whole
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Train the grid, and look through the layers at step 0."""
    grid = GRIDS[budget]
    trained = [run for cell in cells_of(budget) for run in cell.runs_at(grid.rates)]
    starts = [start for cell in cells_of(budget) for start in cell.starts()]
    deep = [task for init in INITS for arm in grid.arms for task in looks_deep(budget, arm, init)]
    return [*trained, *starts, *deep]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Hold both placements of LayerNorm to no norm: sensitivity, best loss, failures, gradients."""
    grid = GRIDS[budget]
    rate = {d: compared(budget, evidence, d, "sensitivity") for d in grid.depths}
    loss = {d: compared(budget, evidence, d, "best") for d in grid.depths}
    tilt = {init: tilts(budget, evidence, init) for init in INITS}
    parts = (
        Part("rate_pre", of_words([found[PRE].word for found in rate.values()], "lower")),
        Part("rate_post", of_words([found[POST].word for found in rate.values()], "lower")),
        Part("deep_pre", of_words([loss[grid.depths[-1]][PRE].word], "lower")),
        Part("deep_post", of_words([loss[grid.depths[-1]][POST].word], "lower")),
        Part("without", _without(budget, evidence)),
        Part("gradients_pre", of_words([found[PRE].word for found in tilt.values()], "lower")),
        Part("gradients_post", of_words([found[POST].word for found in tilt.values()], "lower")),
    )
    return Judgement(
        whole([part.verdict for part in parts]),
        parts,
        numbers=(
            *differences(budget, "rate", rate[grid.depths[-1]]),
            *differences(budget, "deep", loss[grid.depths[-1]]),
            *failures(budget, evidence),
            *(
                Number.difference(f"tilt_{arm[6:]}_{init}", tilt[init][arm], of=of)
                for init in INITS
                for arm in (PRE, POST)
                for of in [[*looks_deep(budget, NONE, init), *looks_deep(budget, arm, init)]]
            ),
            *(least_gradient(budget, evidence, arm) for arm in (NONE, PRE, POST)),
        ),
        tables=(grid_table(budget, evidence),),
        figures=(heat_figure(budget, evidence), *layer_figures(budget, evidence)),
    )


def _without(budget: Budget, evidence: Evidence) -> Verdict:
    """Say whether training without a norm fails: everywhere, nowhere, or from a rate on."""
    grid = GRIDS[budget]
    failed = [
        Cell(budget, NONE, depth).fails(evidence, rate) > 0
        for depth in grid.depths
        for rate in grid.rates
    ]
    return "confirmed" if all(failed) else "holds only when" if any(failed) else "refuted"


CLAIM = Claim(
    id="layernorm-stability",
    section="2.2, 5.2",
    tasks=tasks,
    judge=judge,
    sources=(
        Citation("Wortsman et al. 2023", "arXiv:2309.14322", "sec. 2.2"),
        Citation("Xiong et al. 2020", "arXiv:2002.04745", "theorem 1"),
        Citation("Zhang et al. 2019", "arXiv:1901.09321", "sec. 3"),
    ),
)
