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
from assay.experiments.statistics import Numbers

ALPHA, POWER = 0.05, 0.8
_MOST_SEEDS = 100_000
_QUANTILES = 4000


def smallest_visible(
    noise: float,
    n: int,
    *,
    alpha: float = ALPHA,
    power: float = POWER,
    n_first: int | None = None,
) -> float:
    """Return the difference that n seeds call different with the given power, by Student's test.

    Args:
        noise: Standard deviation of one difference.
        n: Seeds.
        alpha: Level of the test.
        power: How often such a difference is seen.
        n_first: Seeds whose spread is gone by, where the others were added by Stein's rule.

    Raises:
        ConfigError: If there are fewer than two seeds.
    """
    if n < 2:
        raise ConfigError(f"seeds: {n} found; expected at least 2.")
    freedom = (n_first or n) - 1
    threshold = float(special.stdtrit(freedom, 1 - alpha / 2))
    spreads = _spreads(freedom)

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
    z = float(special.ndtri(1 - alpha / 2) + special.ndtri(power))
    ratio = min(abs(difference) / noise, 9.0) if noise else 9.0
    enough = (z / max(ratio, 1e-6)) ** 2  # for a normal test; Student's takes more
    low = high = min(max(2, math.floor(0.95 * enough)), _MOST_SEEDS)
    while smallest_visible(noise, high, alpha=alpha, power=power) > abs(difference):
        if high == _MOST_SEEDS:
            raise ConfigError(
                f"difference: {difference:g} found beside a noise of {noise:g}; expected one that "
                f"{_MOST_SEEDS:,} seeds can see. Look for a larger effect or a quieter metric."
            )
        low, high = high, min(2 * high, _MOST_SEEDS)
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
    same spread makes interval and test: `n_first` of `t_interval` and `p_different`.

    Source: Stein 1945, doi:10.1214/aoms/1177731088.
    """
    t = float(special.stdtrit(len(first) - 1, (1 + level) / 2))
    needed = math.ceil((t * float(first.std(ddof=1)) / half_width) ** 2)
    return max(len(first), needed)
