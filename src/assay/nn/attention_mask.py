"""What the queries of one forward pass may look at: told in a few numbers, drawn where needed.

Shapes: B batch, P either 1 or B, H query heads, T queries, Tk keys, t and s as many of them as a
piece covers.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of the T × Tk scores: queries and keys by index, ends exclusive."""

    first_query: int
    end_query: int
    first_key: int
    end_key: int


@dataclass(frozen=True, slots=True)
class MaskSpec:
    """Which key each query sees, and what is added to its score.

    Queries and keys lie in neighbouring columns of the batch (see `cache`). A query sees no later
    column and none outside the window. Padding is seen by itself alone, so that no row of scores
    is empty and no NaN arises.

    Attributes:
        n_queries: T.
        n_keys: Tk, at least T; the last query stands in the column of the last key.
        first_key: Column of the first key.
        window: Columns a query sees, its own included; None stands for all before it.
        padding: Columns at the start of each row that hold no token, or None.
        by_distance: What each head adds to a score, by the columns from query back to key, of
            which there are at least `n_keys`; None: nothing.
    """

    n_queries: int
    n_keys: int
    first_key: int = 0
    window: int | None = None
    padding: Int[Tensor, " B"] | None = None
    by_distance: Float[Tensor, "H N"] | None = None

    @property
    def past(self) -> int:
        """Keys before that of the first query."""
        return self.n_keys - self.n_queries

    @property
    def is_causal_only(self) -> bool:
        """Whether a query sees every key but later ones, and all alike."""
        near = self.window is None or self.n_keys <= self.window
        return near and self.padding is None and self.by_distance is None

    @property
    def whole(self) -> Tile:
        """All queries and all keys."""
        return Tile(0, self.n_queries, 0, self.n_keys)

    def tile_for_queries(self, first_query: int, end_query: int) -> Tile:
        """Return these queries and the keys that at least one of them may see."""
        reach = self.n_keys if self.window is None else self.window - 1
        first_key = max(0, first_query + self.past - reach)
        return Tile(first_query, end_query, first_key, end_query + self.past)

    def visible(self, piece: Tile, device: torch.device) -> Bool[Tensor, "P 1 t s"]:
        """Return which key of a piece each of its queries sees."""
        distance = self._distance(piece, device)
        visible = (distance >= 0)[None]
        if self.window is not None:
            visible = visible & (distance < self.window)
        if self.padding is not None:
            keys = self.first_key + torch.arange(piece.first_key, piece.end_key, device=device)
            visible = visible & ((keys >= self.padding[:, None])[:, None] | (distance == 0))
        return visible[:, None]

    def bias(
        self, piece: Tile, device: torch.device, dtype: torch.dtype
    ) -> Float[Tensor, "P #H t s"]:
        """Return what is added to the scores of a piece: -inf where a key is not seen."""
        hidden = ~self.visible(piece, device)
        if self.by_distance is None:
            return torch.zeros_like(hidden, dtype=dtype).masked_fill(hidden, -torch.inf)
        wide = self.by_distance.to(device, torch.promote_types(dtype, torch.float32))
        return self._laid_out(wide, piece).masked_fill(hidden, -torch.inf).to(dtype)

    def mask(
        self, device: torch.device, dtype: torch.dtype
    ) -> Float[Tensor, "P #H T Tk"] | Bool[Tensor, "P #H T Tk"] | None:
        """Return the whole bias, or `visible` where that says all, or None where there is none.

        None also stands for the plain causal mask of equally many queries and keys.
        """
        if self.is_causal_only and (self.n_queries == 1 or self.past == 0):
            return None
        if self.by_distance is None:
            return self.visible(self.whole, device)
        return self.bias(self.whole, device, dtype)

    def _laid_out(self, by_distance: Float[Tensor, "H N"], piece: Tile) -> Float[Tensor, "H t s"]:
        """Return the entry of each query and key of a piece, 0 for later keys.

        Row t holds the entries of distances first + t, first + t - 1, ...: a window on the list of
        all distances, that moves by one from row to row, read backwards.
        """
        n_keys = piece.end_key - piece.first_key
        nearest = piece.first_query + self.past - (piece.end_key - 1)
        farthest = piece.end_query - 1 + self.past - piece.first_key
        found = by_distance[:, max(nearest, 0) : farthest + 1]
        later = found.new_zeros(len(found), max(-nearest, 0))
        return torch.cat((later, found), dim=1).unfold(1, n_keys, 1).flip(-1)

    def _distance(self, piece: Tile, device: torch.device) -> Int[Tensor, "t s"]:
        """Return how many columns each key of a piece lies behind each query."""
        queries = torch.arange(piece.first_query, piece.end_query, device=device) + self.past
        return queries[:, None] - torch.arange(piece.first_key, piece.end_key, device=device)
