"""What a number of seeds can see, and how many it takes: before a run is made.

Noise is the standard deviation of the paired difference between two arms, over seeds. Of two runs
that differ in nothing but what the seed decides it is sqrt(2) times that of one run, and less the
more the pairing explains.
"""

import math
from functools import cache

import numpy as np
from scipy import optimize, special

from assay.errors import ConfigError
from assay.experiments.statistics import Interval, Numbers

ALPHA, POWER = 0.05, 0.8
_MOST_SEEDS = 100_000
_QUANTILES = 4000


def smallest_visible(noise: float, n: int, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the difference that n seeds call different with the given power, by Student's test.

    Raises:
        ConfigError: If there are fewer than two seeds.
    """
    if n < 2:
        raise ConfigError(f"seeds: {n} found; expected at least 2.")
    threshold = float(special.stdtrit(n - 1, 1 - alpha / 2))
    spreads = _spreads(n - 1)

    def lacking(effect: float) -> float:
        shift = effect * math.sqrt(n)
        seen = special.ndtr(shift - threshold * spreads) + special.ndtr(
            -shift - threshold * spreads
        )
        return power - float(seen.mean())

    high = 1.0
    while lacking(high) > 0:
        high *= 2
    return float(optimize.brentq(lacking, 0.0, high, xtol=1e-9)) * noise


@cache
def _spreads(freedom: int) -> Numbers:
    """Return equally probable values of the standard deviation found, where the true one is 1.

    Given that spread, a t value is normal, so its power is a mean over them. The noncentral t of
    scipy 1.17 and statsmodels' power of a t-test, which is built on it, are NaN or wrong for some
    arguments, such as two seeds at a level of 0.01.
    """
    shares = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    return np.sqrt(special.chdtri(freedom, 1 - shares) / freedom)


def seeds_to_see(
    noise: float, difference: float, *, alpha: float = ALPHA, power: float = POWER
) -> int:
    """Return how many seeds call such a difference different with the given power.

    Raises:
        ConfigError: If no number of seeds up to 100,000 does.
    """
    low, high = 2, 2
    while smallest_visible(noise, high, alpha=alpha, power=power) > abs(difference):
        low, high = high, 2 * high
        if high > _MOST_SEEDS:
            raise ConfigError(
                f"difference: {difference:g} found beside a noise of {noise:g}; expected one that "
                f"{_MOST_SEEDS:,} seeds can see. Look for a larger effect or a quieter metric."
            )
    while low < high:
        middle = (low + high) // 2
        if smallest_visible(noise, middle, alpha=alpha, power=power) > abs(difference):
            low = middle + 1
        else:
            high = middle
    return high


def seeds_for_width(first: Numbers, half_width: float, *, level: float = 0.95) -> int:
    """Return how many seeds in all make the interval no wider, from a first few.

    Adding seeds until an interval is narrow enough, and computing it as if their number had been
    fixed, covers less than it says: runs stop where the spread happens to look small. Stein's way
    is exact for normal noise: the spread of the first seeds alone decides their number, and that
    same spread makes the interval, `stein_interval`.

    Source: Stein 1945, doi:10.1214/aoms/1177731088.
    """
    t = float(special.stdtrit(len(first) - 1, (1 + level) / 2))
    needed = math.ceil((t * float(first.std(ddof=1)) / half_width) ** 2)
    return max(len(first), needed)


def stein_interval(d: Numbers, n_first: int, *, level: float = 0.95) -> Interval:
    """Return the interval of the mean of all differences, its width by the first `n_first`."""
    t = float(special.stdtrit(n_first - 1, (1 + level) / 2))
    half = t * float(d[:n_first].std(ddof=1)) / math.sqrt(len(d))
    mean = float(d.mean())
    return Interval(mean - half, mean + half, level)
