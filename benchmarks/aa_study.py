"""A real A/A study: two sides that differ in nothing but their seeds, judged as if they did.

    python benchmarks/aa_study.py

40 runs of a tiny model, 20 seeds a side and no seed on both, are trained by the laboratory and
compared by its own rule. Then many smaller comparisons are drawn from the same 40 losses: each
deals as many runs to either side, at random and without repeats, and asks whether the two would
have been called different. Of a sound engine about 5 in 100 are. What is found goes to
docs/figures/aa_study.json; runs that are in the laboratory already are not trained again.

Draws share their 40 runs, so their share says how the test behaves on this noise; it is not that
of so many independent studies, which are simulated in tests/experiments/test_statistics.py.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from assay.experiments.claims.bases import base
from assay.experiments.compare import compare
from assay.experiments.laboratory import Laboratory
from assay.experiments.outcome import Outcome
from assay.experiments.planning import ALPHA
from assay.experiments.statistics import p_different
from assay.experiments.tasks.train import Train
from assay.runs.manifest import code_version
from turns import tell

STORED = Path(__file__).parents[1] / "docs" / "figures" / "aa_study.json"
METRIC = "val_loss_nats"
A_SIDE, STEPS, DRAWS = 20, 100, 10_000
SIZES = (5, 10, 20)

Losses = NDArray[np.float64]


def trainings() -> list[Train]:
    """Return the runs: side A under seeds 0 to 19, side B under 20 to 39."""
    changes = {"train.steps": STEPS, "eval.every": STEPS}
    return [Train(run=base("quick", seed=seed, changes=changes)) for seed in range(2 * A_SIDE)]


def losses_of(lab: Path, *, workers: int) -> list[float]:
    """Train what is missing, and return the validation loss of each run."""
    tasks = trainings()
    laboratory = Laboratory(lab, workers=workers)
    known = laboratory.evidence(tasks)
    laboratory.do([task for task in tasks if task not in known])
    return laboratory.evidence(tasks).values(tasks, METRIC)


def share_different(losses: Losses, n: int, *, draws: int = DRAWS, seed: int = 0) -> float:
    """Return the share of draws of n against n runs that are called different at alpha 0.05."""
    rng = np.random.default_rng(seed)
    called = 0
    for _ in range(draws):
        dealt = rng.permutation(losses)[: 2 * n]
        called += p_different(dealt[:n] - dealt[n:]) < ALPHA
    return called / draws


def as_studied(losses: Sequence[float]) -> dict[str, Any]:
    """Return what the laboratory says of side B beside side A."""
    sides = {
        side: [
            Outcome(side, place, "", "finished", {METRIC: loss}, "", 0.0)
            for place, loss in enumerate(values)
        ]
        for side, values in (("A", losses[:A_SIDE]), ("B", losses[A_SIDE:]))
    }
    (found,) = compare(sides, METRIC)
    assert found.interval is not None
    return {
        "word": found.word,
        "mean": found.mean,
        "low": found.interval.low,
        "high": found.interval.high,
        "p": found.p,
        "visible": found.visible,
    }


def study(losses: Sequence[float], *, draws: int = DRAWS) -> dict[str, Any]:
    """Return all that is said of the losses; a pure function of them."""
    values = np.array(losses)
    normality = stats.shapiro(values)
    return {
        "metric": METRIC,
        "losses": list(losses),
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)),
        "skewness": float(stats.skew(values, bias=False)),
        "excess_kurtosis": float(stats.kurtosis(values, bias=False)),
        "shapiro_w": float(normality.statistic),
        "shapiro_p": float(normality.pvalue),
        "whole": as_studied(losses),
        "alpha": ALPHA,
        "draws": draws,
        "called_different": {str(n): share_different(values, n, draws=draws) for n in SIZES},
    }


def main() -> None:
    """Run the study, say what was found, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lab", type=Path, default=Path("lab/aa-study"))
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    found = study(losses_of(asked.lab, workers=asked.workers))
    found |= {"config": trainings()[0].run.model_dump(mode="json"), "code": code_version()}
    scratch = STORED.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    scratch.replace(STORED)
    whole = found["whole"]
    tell(f"{2 * A_SIDE} runs: {found['mean']:.4f} nats, sd {found['sd']:.4f}")
    tell(f"Shapiro: W {found['shapiro_w']:.3f}, p {found['shapiro_p']:.3f}")
    tell(
        f"B - A: {whole['mean']:+.4f} [{whole['low']:+.4f}, {whole['high']:+.4f}], {whole['word']}"
    )
    for n, share in found["called_different"].items():
        tell(f"{n} against {n}: {share:.2%} of {found['draws']:,} draws called different")


if __name__ == "__main__":
    main()
