"""What a study will take and what it can see, said before it runs."""

import math
from typing import TYPE_CHECKING

from assay.cli.progress import words

if TYPE_CHECKING:
    from assay.experiments.study import Study

_LEAST_PAIRS = 3  # from which on noise is measured, not assumed


def tell_plan(study: "Study", workers: int) -> None:
    """Say how many runs there are and how long they take."""
    from assay.experiments.estimate import mean_run_seconds
    from assay.experiments.study import ENDED

    arms, seeds = study.design.arms, study.record.seeds
    states = [run.state for runs in study.outcomes().values() for run in runs]
    n_waiting = sum(state not in ENDED for state in states)
    seconds = mean_run_seconds(study.design) * n_waiting if n_waiting else 0.0
    seconds /= min(workers, max(1, n_waiting))
    words.print(
        f"{study.folder}: {len(arms)} arms x {len(seeds)} seeds = {len(states)} runs, "
        f"{len(states) - n_waiting} of them made already; about {_minutes(seconds)} with "
        f"{workers} worker{'s' * (workers > 1)} of one thread"
    )


def tell_visible(study: "Study", noise: float) -> None:
    """Say what difference the seeds can see, by the noise that finished runs show, else assumed."""
    from assay.experiments.planning import ALPHA, POWER, smallest_visible

    n_seeds, others = len(study.record.seeds), len(study.design.arms) - 1
    noise, how = _noise(study, noise)
    widening = study.record.made.widening
    n_first = widening.n_first if widening else None
    visible = smallest_visible(noise, n_seeds, alpha=ALPHA / others, n_first=n_first)
    words.print(
        f"{n_seeds} seeds can see a difference of {visible:.2g} with power {POWER:g}, if "
        f"the noise of a paired difference is {noise:.2g} ({how}), over {others} "
        f"comparison{'s' * (others > 1)}"
    )


def tell_made(study: "Study") -> None:
    """Say how arms were made comparable."""
    from assay.experiments.provenance import how_arm_made

    sizes = study.sizes()
    for arm in study.design.arms:
        if told := how_arm_made(study.design, sizes, arm):
            words.print(f"{arm.name}: {told}")


def _noise(study: "Study", assumed: float) -> tuple[float, str]:
    noises = [found.noise for found in study.comparisons() if found.n >= _LEAST_PAIRS]
    found = [noise for noise in noises if math.isfinite(noise) and noise > 0]
    return (max(found), "measured") if found else (assumed, "assumed; --noise")


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
