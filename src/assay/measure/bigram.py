"""How much of a text one token of context explains: the floor of every model without a mixer.

A model that sees only the current token (and its position, on which the next one does not depend
when windows begin anywhere in the text) predicts from P(next | current) at best, so its loss cannot
stay below the conditional entropy. Taken from the counts of the very text it is judged on, the
floor holds to the letter for any table of next tokens by current token.
"""

import numpy as np
from numpy.typing import NDArray


def entropy_nats(ids: NDArray[np.integer]) -> float:
    """Return H(token) of the counts in `ids` (n,)."""
    return _entropy(np.unique(ids, return_counts=True)[1])


def bigram_floor_nats(ids: NDArray[np.integer]) -> float:
    """Return H(next | current) = H(current, next) - H(current) of the counts in `ids` (n,), n > 1.

    Source: Shannon 1951, doi:10.1002/j.1538-7305.1951.tb01366.x, eq. 1 with N = 2.
    """
    wide = ids.astype(np.int64)
    pairs = wide[:-1] * (int(wide.max()) + 1) + wide[1:]
    return _entropy(np.unique(pairs, return_counts=True)[1]) - entropy_nats(wide[:-1])


def _entropy(counts: NDArray[np.int64]) -> float:
    p = counts / counts.sum()
    return float(-(p * np.log(p)).sum())
