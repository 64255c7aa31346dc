"""Paired differences between two arms: intervals, tests, and what several tests cost.

Two arms run under the same seeds read the same data in the same order and start from the same
weights where they share them, so what is judged is the difference seed by seed. Everything here
takes such differences, (n,) numbers in the unit of the metric, one a seed; a difference above zero
says that the first arm's number is the higher.

What the intervals cover and how often the tests err, for normal, heavy-tailed and skewed noise and
3 to 20 seeds, is simulated in tests/experiments.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from assay.errors import ConfigError

LEVEL = 0.95
"""Confidence of an interval, unless told."""
RESAMPLES = 9_999
_LEAST_FOR_BOOTSTRAP = 8  # with fewer, its interval is far too narrow: see tests/experiments

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a mean difference lies, at a level of confidence."""

    low: float
    high: float
    level: float = LEVEL

    def excludes(self, value: float) -> bool:
        """Return whether `value` lies outside."""
        return not self.low <= value <= self.high

    @property
    def half_width(self) -> float:
        """Half the distance of the ends."""
        return (self.high - self.low) / 2


def differences(first: ArrayLike, second: ArrayLike) -> Numbers:
    """Return first minus second, seed by seed, as (n,) float64.

    Raises:
        ConfigError: If there are fewer than two pairs, or not as many of one as of the other.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ConfigError(f"arms of {a.shape} and {b.shape} results found; expected pairs by seed.")
    if len(a) < 2:
        raise ConfigError(f"seeds: {len(a)} found; expected at least 2, or there is no spread.")
    return a - b


def t_interval(d: Numbers, *, level: float = LEVEL, n_first: int | None = None) -> Interval:
    """Return Student's interval of the mean difference; exact for normal noise.

    Args:
        d: The differences.
        level: Confidence.
        n_first: Where the spread of so many first differences decided how many there are, it is
            what the interval is made of: Stein's, exact too. See `planning.seeds_for_width`.

    Source: Stein 1945, doi:10.1214/aoms/1177731088.
    """
    freedom = len(d[:n_first]) - 1
    half = float(special.stdtrit(freedom, (1 + level) / 2)) * standard_error(d, n_first)
    mean = float(d.mean())
    return Interval(mean - half, mean + half, level)


def standard_error(d: Numbers, n_first: int | None = None) -> float:
    """Return the standard error of the mean, by the spread of all or of the first `n_first`."""
    return float(d[:n_first].std(ddof=1)) / float(np.sqrt(len(d)))


def bootstrap_interval(d: Numbers, *, level: float = LEVEL, seed: int = 0) -> Interval | None:
    """Return the bias-corrected and accelerated bootstrap interval, or None under eight seeds.

    Source: Efron 1987, doi:10.1080/01621459.1987.10478410.
    """
    if len(d) < _LEAST_FOR_BOOTSTRAP or np.ptp(d) == 0:
        return None
    found = stats.bootstrap(
        (d,),
        np.mean,
        confidence_level=level,
        n_resamples=RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(found.low), float(found.high), level)


def multi_bootstrap_interval(
    d: NDArray[np.float64], weights: ArrayLike, *, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Return the interval of a mean over seeds *and* documents, both of them resampled.

    It answers for other documents of the same kind as well as for other seeds, and is the wider for
    it. Percentiles of resampled means; with few seeds it is as narrow as every plain bootstrap.

    Args:
        d: Differences, (seeds, documents): of the mean loss in each document.
        weights: Tokens in each document, (documents,).
        level: Confidence.
        seed: Of the resampling.

    Source: Sellam et al. 2021, arXiv:2106.16163, sec. 3.
    """
    rng, w = np.random.default_rng(seed), np.asarray(weights, np.float64)
    n_seeds, n_documents = d.shape
    chosen = rng.multinomial(n_documents, np.full(n_documents, 1 / n_documents), RESAMPLES) * w
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), RESAMPLES) / n_seeds
    means = np.einsum("rs,sd,rd->r", seeds, d, chosen, optimize=True) / chosen.sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def p_different(d: Numbers, *, n_first: int | None = None) -> float:
    """Return the two-sided p of Student's test that the mean difference is zero.

    Differences that are all alike have no spread to be judged by: 1 if they are zero, else 0.
    """
    if np.ptp(d[:n_first]) == 0:
        return float(d.mean() == 0)
    return 2 * _p_below(d, -abs(float(d.mean())), n_first)


def _p_below(d: Numbers, mean: float, n_first: int | None) -> float:
    """Return how probable a mean so low or lower is, with the spread of `d` around zero."""
    return float(special.stdtr(len(d[:n_first]) - 1, mean / standard_error(d, n_first)))


def p_equivalent(d: Numbers, delta: float, *, n_first: int | None = None) -> float:
    """Return the p of two one-sided tests that the mean difference lies within +- delta.

    Source: Schuirmann 1987, doi:10.1007/BF01068419.

    Raises:
        ConfigError: If delta is not above zero.
    """
    if delta <= 0:
        raise ConfigError(f"delta: {delta} found; expected the smallest difference that matters.")
    if np.ptp(d[:n_first]) == 0:
        return float(not abs(d.mean()) < delta)
    return _p_below(d, abs(float(d.mean())) - delta, n_first)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number: any of them under alpha is so at a family's alpha.

    Source: Holm 1979, Scand. J. Statist. 6:65-70.
    """
    order = np.argsort(p_values)  # statsmodels' multipletests collects garbage: 0.5 s a call
    ranked = np.asarray(p_values, dtype=float)[order]
    adjusted = np.maximum.accumulate(np.arange(len(ranked), 0, -1) * ranked).clip(max=1.0)
    return [float(p) for p in adjusted[np.argsort(order)]]


def p_diverged(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return the exact two-sided p that both arms diverge equally often, by pairs that disagree.

    Source: McNemar 1947, doi:10.1007/BF02295996, in its exact form.
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)
