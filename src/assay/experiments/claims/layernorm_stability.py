"""LayerNorm steadies gradients, lets models be deep and rates be wrong; without it, instability."""

import math
from collections.abc import Sequence
from statistics import fmean

from assay.experiments.claim import (
    Budget,
    Claim,
    Figure,
    Judgement,
    Number,
    Part,
    Table,
    Verdict,
)
from assay.experiments.claims.changes import against
from assay.experiments.claims.rates import GRIDS, Cell
from assay.experiments.claims.verdicts import of_words, whole
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.inside import DepthAtStart
from assay.source import Source

_INITS = ("gpt2", "torch")
_DEEP = {"quick": 4, "laptop": 12, "full": 24}
_PRE, _POST, _NONE = "layer-pre", "layer-post", "none"
_DELTA_NATS = 0.05
_DELTA_TILT = 0.1  # of ln(largest / smallest): a tenth of the ratio


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Train the grid, and look through the layers at step 0."""
    grid = GRIDS[budget]
    trained = [run for cell in _cells(budget) for rate in grid.rates for run in cell.runs(rate)]
    starts = [start for cell in _cells(budget) for start in cell.starts()]
    deep = [task for init in _INITS for arm in grid.arms for task in _deep(budget, arm, init)]
    return [*trained, *starts, *deep]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Hold both placements of LayerNorm to no norm: sensitivity, best loss, failures, gradients."""
    grid = GRIDS[budget]
    rate = {d: _compared(budget, evidence, d, "sensitivity") for d in grid.depths}
    loss = {d: _compared(budget, evidence, d, "best") for d in grid.depths}
    tilt = {init: _tilts(budget, evidence, init) for init in _INITS}
    parts = (
        Part("rate_pre", of_words([found[_PRE].word for found in rate.values()], "lower")),
        Part("rate_post", of_words([found[_POST].word for found in rate.values()], "lower")),
        Part("deep_pre", of_words([loss[grid.depths[-1]][_PRE].word], "lower")),
        Part("deep_post", of_words([loss[grid.depths[-1]][_POST].word], "lower")),
        Part("without", _without(budget, evidence)),
        Part("gradients_pre", of_words([found[_PRE].word for found in tilt.values()], "lower")),
        Part("gradients_post", of_words([found[_POST].word for found in tilt.values()], "lower")),
    )
    return Judgement(
        whole([part.verdict for part in parts]),
        parts,
        numbers=(
            *_differences(budget, "rate", rate[grid.depths[-1]]),
            *_differences(budget, "deep", loss[grid.depths[-1]]),
            *_failures(budget, evidence),
            *(
                Number.difference(f"tilt_{arm[6:]}_{init}", tilt[init][arm], of=of)
                for init in _INITS
                for arm in (_PRE, _POST)
                for of in [[*_deep(budget, _NONE, init), *_deep(budget, arm, init)]]
            ),
            *(_least_gradient(budget, evidence, arm) for arm in (_NONE, _PRE, _POST)),
        ),
        tables=(_table(budget, evidence),),
        figures=(_heat(budget, evidence), *_layers(budget, evidence)),
    )


def _cells(budget: Budget) -> list[Cell]:
    grid = GRIDS[budget]
    return [Cell(budget, arm, depth) for depth in grid.depths for arm in grid.arms]


def _deep(budget: Budget, arm: str, init: str) -> list[DepthAtStart]:
    return Cell(budget, arm, _DEEP[budget]).starts(init=init)


def _compared(budget: Budget, evidence: Evidence, depth: int, what: str) -> dict[str, Comparison]:
    """Compare both placements of LayerNorm with no norm at one depth."""
    cells = {arm: Cell(budget, arm, depth) for arm in (_NONE, _PRE, _POST)}
    if what == "sensitivity":
        return against(
            {arm: cell.sensitivities(evidence) for arm, cell in cells.items()}, delta=_DELTA_NATS
        )
    rates = GRIDS[budget].rates
    return against(
        {arm: cell.best(evidence, rates) for arm, cell in cells.items()}, delta=_DELTA_NATS
    )


def _tilts(budget: Budget, evidence: Evidence, init: str) -> dict[str, Comparison]:
    """Compare how unequal the gradients of the layers are, |ln(largest / smallest)|, at step 0."""
    values = {
        arm: [_tilt(evidence, task) for task in _deep(budget, arm, init)]
        for arm in (_NONE, _PRE, _POST)
    }
    return against(values, delta=_DELTA_TILT)


def _tilt(evidence: Evidence, task: DepthAtStart) -> float:
    norms = evidence[task].values["gradient_norms"]
    finite = [norm for norm in norms if norm]
    return math.log(max(finite) / min(finite)) if len(finite) == len(norms) else math.nan


def _least_gradient(budget: Budget, evidence: Evidence, arm: str) -> Number:
    """Return the least gradient norm of any layer at step 0, under GPT-2's initialisation."""
    looks = _deep(budget, arm, "gpt2")
    values = [evidence[task].values["gradient_norms"] for task in looks]
    least = [min(norms) if all(norms) else math.nan for norms in values]
    return Number.mean(f"least_{arm.removeprefix('layer-')}", least, of=looks)


def _without(budget: Budget, evidence: Evidence) -> Verdict:
    """Say whether training without a norm fails: everywhere, nowhere, or from a rate on."""
    grid = GRIDS[budget]
    failed = [
        Cell(budget, _NONE, depth).fails(evidence, rate) > 0
        for depth in grid.depths
        for rate in grid.rates
    ]
    return "confirmed" if all(failed) else "holds only when" if any(failed) else "refuted"


def _differences(budget: Budget, name: str, found: dict[str, Comparison]) -> tuple[Number, ...]:
    depth = GRIDS[budget].depths[-1]
    return tuple(
        Number.difference(
            f"{name}_{arm[6:]}",
            found[arm],
            of=[
                run
                for each in (_NONE, arm)
                for rate in GRIDS[budget].rates
                for run in Cell(budget, each, depth).runs(rate)
            ],
            unit="nats",
        )
        for arm in (_PRE, _POST)
    )


def _failures(budget: Budget, evidence: Evidence) -> list[Number]:
    """Return, for no norm and LayerNorm, the runs that failed and where failing begins."""
    grid = GRIDS[budget]
    numbers = [Number("depth", grid.depths[-1]), Number("deepest", _DEEP[budget])]
    numbers.append(Number("runs", len(grid.rates) * len(grid.depths) * grid.seeds))
    for arm, name in ((_NONE, "none"), (_PRE, "pre"), (_POST, "post")):
        cells = [Cell(budget, arm, depth) for depth in grid.depths]
        failed = {rate: sum(cell.fails(evidence, rate) for cell in cells) for rate in grid.rates}
        at = [rate for rate, count in failed.items() if count]
        steps = [step for cell in cells for step in cell.first_steps(evidence, grid.rates)]
        of = tuple(run for cell in cells for rate in grid.rates for run in cell.runs(rate))
        numbers += [
            Number(f"failed_{name}", sum(failed.values()), of=of),
            Number(f"fails_from_{name}", min(at, default=math.nan), of=of),
            Number(f"diverged_{name}", len(steps), of=of),
            Number(f"first_step_{name}", min(steps, default=math.nan), of=of),
        ]
    return numbers


def _table(budget: Budget, evidence: Evidence) -> Table:
    grid = GRIDS[budget]
    rows = []
    for cell in _cells(budget):
        of = [run for rate in grid.rates for run in cell.runs(rate)]
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


def _heat(budget: Budget, evidence: Evidence) -> Figure:
    rows = tuple(
        {"rate": f"{rate:g}", "arm": cell.arm, "depth": f"L = {cell.depth}", "loss": loss}
        for cell in _cells(budget)
        for rate in GRIDS[budget].rates
        if (loss := cell.mean_loss(evidence, rate)) is not None
    )
    return Figure("heat", "heat", rows, "rate", "arm", value="loss", facet="depth")


def _layers(budget: Budget, evidence: Evidence) -> tuple[Figure, Figure]:
    """Return gradient norm and scale of the stream by layer, means over seeds."""
    drawn = []
    for figure, field in (("gradients", "gradient_norms"), ("stream", "stream_rms")):
        rows = []
        for init in _INITS:
            for arm in GRIDS[budget].arms:
                found = [evidence[task].values[field] for task in _deep(budget, arm, init)]
                for layer, each in enumerate(zip(*found, strict=True)):
                    value = fmean(each) if all(each) else None
                    rows.append({"layer": layer, "value": value, "arm": arm, "init": init})
        drawn.append(
            Figure(figure, "lines", tuple(rows), "layer", "value", "arm", facet="init", log="y")
        )
    return drawn[0], drawn[1]


CLAIM = Claim(
    id="layernorm-stability",
    section="2.2, 5.2",
    tasks=tasks,
    judge=judge,
    sources=(
        Source("Wortsman et al. 2023", "arXiv:2309.14322", "sec. 2.2"),
        Source("Xiong et al. 2020", "arXiv:2002.04745", "theorem 1"),
        Source("Zhang et al. 2019", "arXiv:1901.09321", "sec. 3"),
    ),
)
