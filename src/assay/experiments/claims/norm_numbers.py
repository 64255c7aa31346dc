"""Numbers of the claim on LayerNorm."""

import math

from assay.experiments.claim import Budget, Number
from assay.experiments.claims.norm_grid import DEEP, NONE, POST, PRE, looks_deep
from assay.experiments.claims.rates import GRIDS, Cell
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence


def differences(budget: Budget, name: str, found: dict[str, Comparison]) -> tuple[Number, ...]:
    """Return how both placements differ from no norm at the largest depth."""
    depth = GRIDS[budget].depths[-1]
    return tuple(
        Number.difference(
            f"{name}_{arm[6:]}",
            found[arm],
            of=[
                run
                for each in (NONE, arm)
                for run in Cell(budget, each, depth).runs_at(GRIDS[budget].rates)
            ],
            unit="nats",
        )
        for arm in (PRE, POST)
    )


def failures(budget: Budget, evidence: Evidence) -> list[Number]:
    """Return, for no norm and LayerNorm, the runs that failed and where failing begins."""
    grid = GRIDS[budget]
    numbers = [Number("depth", grid.depths[-1]), Number("deepest", DEEP[budget])]
    numbers.append(Number("runs", len(grid.rates) * len(grid.depths) * grid.seeds))
    for arm, name in ((NONE, "none"), (PRE, "pre"), (POST, "post")):
        cells = [Cell(budget, arm, depth) for depth in grid.depths]
        failed = {rate: sum(cell.fails(evidence, rate) for cell in cells) for rate in grid.rates}
        at = [rate for rate, count in failed.items() if count]
        steps = [step for cell in cells for step in cell.first_steps(evidence, grid.rates)]
        of = tuple(run for cell in cells for run in cell.runs_at(grid.rates))
        numbers += [
            Number(f"failed_{name}", sum(failed.values()), of=of),
            Number(f"fails_from_{name}", min(at, default=math.nan), of=of),
            Number(f"diverged_{name}", len(steps), of=of),
            Number(f"first_step_{name}", min(steps, default=math.nan), of=of),
        ]
    return numbers


def least_gradient(budget: Budget, evidence: Evidence, arm: str) -> Number:
    """Return the least gradient norm of any layer at step 0, under GPT-2's initialisation."""
    looks = looks_deep(budget, arm, "gpt2")
    values = [evidence[task].values["gradient_norms"] for task in looks]
    least = [min(norms) if all(norms) else math.nan for norms in values]
    return Number.mean(f"least_{arm.removeprefix('layer-')}", least, of=looks)
