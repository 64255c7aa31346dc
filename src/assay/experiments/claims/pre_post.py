"""Pre-norm trains without warm-up where post-norm needs it: both, with and without, two depths."""

from collections.abc import Mapping, Sequence

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part
from assay.experiments.claims.changes import against
from assay.experiments.claims.pre_post_pictures import arms_table, rates_figure
from assay.experiments.claims.rates import GRIDS, Cell
from assay.experiments.claims.verdicts import Wanted, all_of, of_words
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.train import Train

_PRE, _POST = "layer-pre", "layer-post"
_DELTA_NATS = 0.05
_COLD, _WARM = "cold", "warm"
# By part: an arm, the one that is held to it, and how its loss should be.
_PAIRS: Mapping[str, tuple[str, str, Wanted]] = {
    "post_needs": ("post-cold", "post-warm", "lower"),
    "pre_free": ("pre-cold", "pre-warm", "equivalent"),
    "better_cold": ("post-cold", "pre-cold", "lower"),
    "better_warm": ("post-warm", "pre-warm", "lower"),
}


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Train both placements; the runs without warm-up are those of the claim on LayerNorm."""
    cells = [cell for depth in GRIDS[budget].depths for cell in _cells(budget, depth).values()]
    starts = [start for cell in cells for start in cell.starts()]
    return [*(run for cell in cells for run in cell.runs_at(rates(budget))), *starts]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Compare the best loss over the rates: with warm-up and without, post-norm and pre-norm."""
    depths, deepest = GRIDS[budget].depths, GRIDS[budget].depths[-1]
    told = {
        name: {depth: _pair(evidence, budget, depth, (one, other)) for depth in depths}
        for name, (one, other, _) in _PAIRS.items()
    }
    parts = tuple(
        Part(name, of_words([found.word for found in told[name].values()], wanted))
        for name, (_, _, wanted) in _PAIRS.items()
    )
    cells = {depth: _cells(budget, depth) for depth in depths}
    return Judgement(
        all_of([part.verdict for part in parts[:2]]),
        parts,
        numbers=(
            Number("shallow", depths[0]),
            Number("deep", deepest),
            Number("delta", _DELTA_NATS, unit="nats"),
            *(
                Number.difference(f"{name}_{place}", found[depth], of=_of(budget, depth))
                for name, found in told.items()
                for place, depth in (("shallow", depths[0]), ("deep", deepest))
            ),
        ),
        tables=(arms_table(evidence, cells, rates(budget)),),
        figures=(rates_figure(evidence, cells, rates(budget)),),
    )


def rates(budget: Budget) -> tuple[float, ...]:
    """Return the rates of both: the ends of the grid, at which little is learned, are left out."""
    return GRIDS[budget].rates[1:-1] if GRIDS[budget].n_rates > 3 else GRIDS[budget].rates[:2]


def _cells(budget: Budget, depth: int) -> dict[str, Cell]:
    return {
        f"{arm[6:]}-{name}": Cell(budget, arm, depth, warm=name == _WARM)
        for arm in (_PRE, _POST)
        for name in (_COLD, _WARM)
    }


def _of(budget: Budget, depth: int) -> list[Train]:
    cells = _cells(budget, depth).values()
    return [run for cell in cells for run in cell.runs_at(rates(budget))]


def _pair(evidence: Evidence, budget: Budget, depth: int, arms: tuple[str, str]) -> Comparison:
    """Compare the second arm with the first, by the best loss over the rates under each seed."""
    cells = _cells(budget, depth)
    values = {arm: cells[arm].best(evidence, rates(budget)) for arm in arms}
    return against(values, delta=_DELTA_NATS)[arms[1]]


CLAIM = Claim(
    id="pre-post",
    section="8",
    tasks=tasks,
    judge=judge,
    sources=(
        Citation("Xiong et al. 2020", "arXiv:2002.04745", "sec. 3"),
        Citation("Liu et al. 2020", "arXiv:2004.08249", "sec. 4"),
    ),
)
