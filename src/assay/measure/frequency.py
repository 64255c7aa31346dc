"""Loss by how frequent the predicted token is in the training text.

Tokens are ranked by their count and the ranks cut into buckets. The mean loss of all targets is the
mean of the buckets weighted by their share of targets, so the buckets tell where a difference lies.

Shapes: V vocabulary, N targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Targets whose token has a rank of `first` to `last`, counted from 1, both included.

    Attributes:
        first: Smallest rank; the most frequent token of the training text has rank 1.
        last: Largest rank.
        targets: How many of the judged targets.
        loss_nats: Their mean loss; None where there are none.
    """

    first: int
    last: int
    targets: int
    loss_nats: float | None


def token_counts(ids: NDArray[np.integer], vocab_size: int) -> Counts:
    """Return how often every token occurs in `ids`, (V,); 0 for those that do not."""
    return np.bincount(ids, minlength=vocab_size).astype(np.int64)


def token_ranks(counts: Counts) -> Counts:
    """Return the rank of every token, 1 for the most frequent, (V,); ties by the smaller id."""
    ranks = np.empty(len(counts), np.int64)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(1, len(counts) + 1)
    return ranks


def loss_by_rank(
    losses: NDArray[np.floating], targets: NDArray[np.integer], counts: Counts, ends: Sequence[int]
) -> list[Bucket]:
    """Return the mean loss of each bucket of ranks.

    Args:
        losses: Of every target, nats, (N,).
        targets: Their tokens, (N,).
        counts: Of every token in the training text, (V,).
        ends: The last rank of each bucket but the last, increasing and under V; the last bucket
            ends with V.
    """
    edges = [0, *ends, len(counts)]
    if any(low >= high for low, high in pairwise(edges)):
        raise ValueError(f"ends {list(ends)} found; expected increasing ranks under {len(counts)}.")
    which = np.searchsorted(edges, token_ranks(counts)[targets]) - 1
    sizes = np.bincount(which, minlength=len(edges) - 1)
    sums = np.bincount(which, losses, minlength=len(edges) - 1)
    return [
        Bucket(low + 1, high, int(n), float(total) / int(n) if n else None)
        for (low, high), n, total in zip(pairwise(edges), sizes, sums, strict=True)
    ]
