"""Seeds added until intervals are narrow enough, the error rate kept: Stein's two stages."""

from collections.abc import Mapping, Sequence

from assay.errors import ConfigError
from assay.experiments.compare import paired
from assay.experiments.design import Design
from assay.experiments.made import Widening
from assay.experiments.outcome import Outcome
from assay.experiments.planning import ALPHA, seeds_for_width


def check(widening: Widening) -> None:
    """Refuse a bound below the first stage.

    Raises:
        ConfigError: With both numbers.
    """
    if widening.most < widening.n_first:
        raise ConfigError(
            f"--most-seeds: {widening.most} found; expected at least the {widening.n_first} of "
            "--seeds, the first stage."
        )


def seeds_asked(outcomes: Mapping[str, Sequence[Outcome]], metric: str, widening: Widening) -> int:
    """Return how many seeds the rule asks for in all, by the spread of the first ones.

    Every comparison is to be narrow enough at the level that Bonferroni leaves it, the widest that
    Holm's method can ask for. Arms with fewer than two pairs of finished runs ask for nothing.
    """
    first, *others = outcomes
    level, n_first = 1 - ALPHA / len(others), widening.n_first
    pairs = [paired(outcomes[first][:n_first], outcomes[arm][:n_first], metric) for arm in others]
    asked = [
        seeds_for_width(d, widening.half_width, level=level) + n_first - len(d)
        for d in pairs
        if len(d) > 1
    ]
    return max([n_first, *asked])


def widened(design: Design, asked: int, widening: Widening) -> Design:
    """Return the design with the seeds that the rule asks for, or as many as it may have."""
    first = design.seeds[0]
    made = design.made.model_copy(update={"widening": widening})
    seeds = range(first, first + min(asked, widening.most))
    return Design(design.base, design.arms, seeds, made=made)
