"""Pre-norm trains without warm-up where post-norm needs it: both, with and without, two depths."""

from collections.abc import Sequence

from assay.experiments.claim import Budget, Claim, Figure, Judgement, Number, Part, Table
from assay.experiments.claims.changes import against
from assay.experiments.claims.rates import GRIDS, Cell
from assay.experiments.claims.verdicts import all_of, of_words
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.train import Train
from assay.source import Source

_PRE, _POST = "layer-pre", "layer-post"
_DELTA_NATS = 0.05
_COLD, _WARM = "cold", "warm"


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Train both placements; the runs without warm-up are those of the claim on LayerNorm."""
    cells = [cell for depth in GRIDS[budget].depths for cell in _cells(budget, depth).values()]
    starts = [start for cell in cells for start in cell.starts()]
    return [*(run for cell in cells for run in _runs(cell)), *starts]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Compare the best loss over the rates: with warm-up and without, post-norm and pre-norm."""
    depths, deepest = GRIDS[budget].depths, GRIDS[budget].depths[-1]
    warmed = {
        arm: {depth: _pair(evidence, budget, depth, (f"{arm}-cold", f"{arm}-warm"))
              for depth in depths}
        for arm in ("pre", "post")
    }  # fmt: skip
    cold = {d: _pair(evidence, budget, d, ("post-cold", "pre-cold")) for d in depths}
    warm = {d: _pair(evidence, budget, d, ("post-warm", "pre-warm")) for d in depths}
    parts = (
        Part("post_needs", of_words([found.word for found in warmed["post"].values()], "lower")),
        Part("pre_free", of_words([found.word for found in warmed["pre"].values()], "equivalent")),
        Part("better_cold", of_words([found.word for found in cold.values()], "lower")),
        Part("better_warm", of_words([found.word for found in warm.values()], "lower")),
    )
    told = {
        "post_needs": warmed["post"],
        "pre_free": warmed["pre"],
        "better_cold": cold,
        "better_warm": warm,
    }
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
        tables=(_table(budget, evidence),),
        figures=(_figure(budget, evidence),),
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


def _runs(cell: Cell) -> list[Train]:
    return [run for rate in rates(cell.budget) for run in cell.runs(rate)]


def _of(budget: Budget, depth: int) -> list[Train]:
    return [run for cell in _cells(budget, depth).values() for run in _runs(cell)]


def _pair(evidence: Evidence, budget: Budget, depth: int, arms: tuple[str, str]) -> Comparison:
    """Compare the second arm with the first, by the best loss over the rates under each seed."""
    cells = _cells(budget, depth)
    values = {arm: cells[arm].best(evidence, rates(budget)) for arm in arms}
    return against(values, delta=_DELTA_NATS)[arms[1]]


def _table(budget: Budget, evidence: Evidence) -> Table:
    rows = tuple(
        (
            str(depth),
            arm,
            Number.mean(f"best_{arm}_{depth}", cell.best(evidence, rates(budget)), of=_runs(cell)),
            f"{sum(cell.fails(evidence, rate) for rate in rates(budget))} / {len(_runs(cell))}",
        )
        for depth in GRIDS[budget].depths
        for arm, cell in _cells(budget, depth).items()
    )
    return Table("arms", ("depth", "arm", "best", "failed"), rows, {"best": ".3f"})


def _figure(budget: Budget, evidence: Evidence) -> Figure:
    rows = tuple(
        {
            "rate": rate,
            "loss": cell.mean_loss(evidence, rate),
            "arm": arm,
            "depth": f"L = {depth}",
        }
        for depth in GRIDS[budget].depths
        for arm, cell in _cells(budget, depth).items()
        for rate in rates(budget)
    )
    return Figure("rates", "lines", rows, "rate", "loss", "arm", facet="depth", log="x")


CLAIM = Claim(
    id="pre-post",
    section="8",
    tasks=tasks,
    judge=judge,
    sources=(
        Source("Xiong et al. 2020", "arXiv:2002.04745", "sec. 3"),
        Source("Liu et al. 2020", "arXiv:2004.08249", "sec. 4"),
    ),
)
