"""A language model of counts: interpolated Kneser-Ney smoothing over token ids.

It shares nothing with a neural model but the text it was fitted on, which makes it a second,
independent judge of what a model writes.

Shapes: n tokens of text, V vocabulary. N-grams are numbers in base V, the oldest token first.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from assay.errors import ConfigError, DataError

Ids = NDArray[np.integer[Any]]
_Keys = NDArray[np.int64]
_Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Sorted keys, and a number of each."""

    keys: _Keys
    numbers: _Numbers

    @classmethod
    def of(cls, keys: _Keys, weights: _Numbers | None = None) -> "_Table":
        """Add up the weights, or count the keys, by key."""
        found, which = np.unique(keys, return_inverse=True)
        return cls(found, np.bincount(which, weights).astype(np.float64))

    def at(self, keys: _Keys) -> _Numbers:
        """Return the number of each key, 0 where it is not in the table."""
        place = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        return np.where(self.keys[place] == keys, self.numbers[place], 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """The counts of one order.

    Attributes:
        counts: Of each n-gram; under the highest order, of the different tokens before it.
        totals: Of each context: the sum of its n-grams' counts.
        types: Of each context: its different n-grams.
        discount: Taken from every count.
    """

    counts: _Table
    totals: _Table
    types: _Table
    discount: float

    @classmethod
    def of(cls, counts: _Table, vocab_size: int) -> "_Order":
        contexts = counts.keys // vocab_size
        ones, twos = (int((counts.numbers == k).sum()) for k in (1, 2))
        return cls(
            counts,
            _Table.of(contexts, counts.numbers),
            _Table.of(contexts),
            (ones + 0.5) / (ones + 2 * twos + 1),
        )

    def refine(self, p: _Numbers, keys: _Keys, contexts: _Keys) -> _Numbers:
        """Return the probabilities of this order from those of the order below."""
        total = self.totals.at(contexts)
        seen = (self.counts.at(keys) - self.discount).clip(min=0)
        left = self.discount * self.types.at(contexts)
        return np.where(total > 0, (seen + left * p) / np.where(total > 0, total, 1), p)


@dataclass(frozen=True, slots=True, eq=False)
class NGramModel:
    r"""$P_k(w|h) = \frac{\max(c(hw) - D_k, 0) + D_k N(h\cdot) P_{k-1}(w|h')}{c(h\cdot)}$.

    c counts n-grams in the highest order and, below it, the different tokens seen before an n-gram;
    N counts the tokens seen after h; h' is h without its oldest token; a context never seen leaves
    P to the order below; under order 1 lies the uniform distribution, so that no token has
    probability 0. D_k = n1 / (n1 + 2 n2) from the counts of counts, with 1/2 added to n1 and n2/2
    to keep it inside (0, 1) in small texts.

    Source: Kneser & Ney 1995, doi:10.1109/ICASSP.1995.479394, in the interpolated form of Chen &
    Goodman 1999, doi:10.1006/csla.1999.0128, section 3.
    """

    vocab_size: int
    orders: tuple[_Order, ...]

    @classmethod
    def fit(cls, ids: Ids, *, vocab_size: int, order: int = 5) -> "NGramModel":
        """Count the n-grams of a text.

        Args:
            ids: The text, (n,).
            vocab_size: V.
            order: Tokens of the longest n-gram, the predicted one included.

        Raises:
            ConfigError: If n-grams of this order have no number under 2**63.
            DataError: If the text is shorter than an n-gram, or has an id of V or more.
        """
        if order < 1 or order * math.log2(vocab_size) >= 63:
            raise ConfigError(
                f"order: {order} found for a vocabulary of {vocab_size}; expected at least 1 and "
                f"at most {int(62.99 / math.log2(vocab_size))}."
            )
        _check_ids(ids, vocab_size, order)
        counts = _Table.of(_keys(ids, order, vocab_size))
        orders = [_Order.of(counts, vocab_size)]
        for k in range(order - 1, 0, -1):
            counts = _Table.of(counts.keys % vocab_size**k)
            orders.insert(0, _Order.of(counts, vocab_size))
        return cls(vocab_size, tuple(orders))

    def log2_probability(self, ids: Ids) -> _Numbers:
        """Return log2 P of each token of a text, (n,); the first tokens have the shorter context.

        Raises:
            DataError: If the text is empty or has an id of V or more.
        """
        _check_ids(ids, self.vocab_size, 1)
        p = np.full(len(ids), 1 / self.vocab_size)
        for k, order in enumerate(self.orders[: len(ids)], 1):
            keys = _keys(ids, k, self.vocab_size)
            p[k - 1 :] = order.refine(p[k - 1 :], keys, keys // self.vocab_size)
        return np.log2(p)

    def next_probability(self, context: Ids) -> _Numbers:
        """Return the probability of every token after a context (n,), as (V,)."""
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        every = np.arange(self.vocab_size)
        for k, order in enumerate(self.orders[: len(context) + 1], 1):
            before = _keys(context[len(context) - k + 1 :], k - 1, self.vocab_size)
            p = order.refine(p, before * self.vocab_size + every, before.repeat(self.vocab_size))
        return p


def _keys(ids: Ids, n: int, vocab_size: int) -> _Keys:
    """Return the number of each n-gram; the one empty n-gram has number 0."""
    if n == 0:
        return np.zeros(1, np.int64)
    powers = np.array([vocab_size**k for k in range(n - 1, -1, -1)], np.int64)
    return sliding_window_view(ids.astype(np.int64), n) @ powers


def _check_ids(ids: Ids, vocab_size: int, least: int) -> None:
    if len(ids) < least:
        raise DataError(f"text: {len(ids)} tokens found; expected at least {least}.")
    if not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise DataError(
            f"text: ids from {ids.min()} to {ids.max()} found; expected 0 to {vocab_size - 1}, "
            "those of the n-gram model's tokenizer."
        )
