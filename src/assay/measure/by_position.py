"""Whether generated tokens hang together, and how far into the text they do.

Two figures for each stretch of positions, over texts that all begin alike: how often a token equals
the one before it, and the mutual information of neighbours. Both are held against the same pairs
with their second tokens shuffled. Counted from samples, mutual information is too high by about
(V - 1)**2 / 2n nats even where there is none; a shuffle keeps the counts of single tokens and with
them that bias, so that what lies above the shuffles is real. (Where neighbours do depend on each
other the bias is smaller, and the excess somewhat underestimated.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.errors import ConfigError
from assay.measure.bigram import entropy_nats

Ids = NDArray[np.integer[Any]]
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Excess:
    """A figure of a text beside that of its shuffles.

    Attributes:
        found: In the text.
        shuffled: Mean over the shuffles.
        low: 2.5 % of the shuffles lie below.
        high: 2.5 % lie above.
        p: Share of shuffles at least as high, the text itself counted among them.
    """

    found: float
    shuffled: float
    low: float
    high: float
    p: float

    @property
    def excess(self) -> float:
        """What the text has beyond its shuffles."""
        return self.found - self.shuffled


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbours in one stretch of positions.

    Attributes:
        first: Position of the first second token of a pair; at least 1.
        end: One past the last.
        n_pairs: Over all texts.
        repetition: Share of tokens equal to the one before.
        information_nats: Mutual information of neighbours.
    """

    first: int
    end: int
    n_pairs: int
    repetition: Excess
    information_nats: Excess


def by_position(
    tokens: Ids, edges: Sequence[int], *, n_shuffles: int = 200, seed: int = 0
) -> list[Stretch]:
    """Look at the neighbours in each stretch between two edges.

    Args:
        tokens: Ids, (texts, positions).
        edges: Rising, from at least 1 to at most the number of positions; a pair belongs to the
            stretch that its second token lies in.
        n_shuffles: Of each stretch.
        seed: Of the shuffles.

    Raises:
        ConfigError: If the edges are not so.
    """
    _check_edges(edges, tokens.shape[1])
    rng = np.random.default_rng(seed)
    return [_stretch(tokens, first, end, n_shuffles, rng) for first, end in pairwise(edges)]


def _stretch(
    tokens: Ids, first: int, end: int, n_shuffles: int, rng: np.random.Generator
) -> Stretch:
    before, after = tokens[:, first - 1 : end - 1].ravel(), tokens[:, first:end].ravel()
    shuffles = [_figures(before, rng.permutation(after)) for _ in range(n_shuffles)]
    repetition, information = zip(_figures(before, after), *shuffles, strict=True)
    return Stretch(first, end, len(after), _excess(repetition), _excess(information))


def _figures(before: Ids, after: Ids) -> tuple[float, float]:
    return float((before == after).mean()), mutual_information_nats(before, after)


def mutual_information_nats(before: Ids, after: Ids) -> float:
    """Return I(before; after) of the pairs' counts (n,): the plug-in estimate, never negative.

    Source: Cover & Thomas 2006, doi:10.1002/047174882X, eq. 2.45.
    """
    wide = before.astype(np.int64) * (int(after.max()) + 1) + after
    together = entropy_nats(before) + entropy_nats(after) - entropy_nats(wide)
    return max(0.0, together)


def _excess(figures: Sequence[float]) -> Excess:
    found, shuffled = figures[0], np.array(figures[1:])
    low, high = np.quantile(shuffled, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    p = (1 + int((shuffled >= found).sum())) / (1 + len(shuffled))
    return Excess(found, float(shuffled.mean()), float(low), float(high), p)


def _check_edges(edges: Sequence[int], n_positions: int) -> None:
    rising = all(a < b for a, b in pairwise(edges))
    if len(edges) < 2 or not rising or edges[0] < 1 or edges[-1] > n_positions:
        raise ConfigError(
            f"edges: {list(edges)} found; expected rising positions from 1 or more to at most "
            f"{n_positions}, the length of the texts."
        )
