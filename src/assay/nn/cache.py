"""Keys and values of the tokens already read.

A cache counts in *columns*: column c of a batch holds the c-th token of every row, rows being
aligned on the right. A row shorter than the longest starts with padding, and its token in column c
is at position c minus the row's padding.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(slots=True)
class LayerCache:
    """Keys and values of one layer, oldest first.

    Attributes:
        window: Keep only what later queries of this window can see; None keeps all.
        room: Tokens a row there is room for from the start, without a window.
    """

    window: int | None
    room: int = 0
    _k: Tensor | None = None
    _v: Tensor | None = None
    _length: int = 0

    def extend(
        self, k: Float[Tensor, "B H T K"], v: Float[Tensor, "B H T K"]
    ) -> tuple[Float[Tensor, "B H Tk K"], Float[Tensor, "B H Tk K"]]:
        """Take in new keys and values; return all that the new queries may need, these included."""
        if self.window is None:
            return self._append(k, v)
        if self._k is not None and self._v is not None:
            k, v = torch.cat((self._k, k), dim=2), torch.cat((self._v, v), dim=2)
        first = max(0, k.shape[2] - (self.window - 1))  # the next query brings its own key
        self._k, self._v = k[:, :, first:], v[:, :, first:]
        return k, v

    def _append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write in place; the room doubles when it is used up, so a step copies O(1) tokens."""
        start, end = self._length, self._length + k.shape[2]
        if self._k is None or self._v is None or end > self._k.shape[2]:
            room = self.room if end <= self.room else 2 * end
            self._k, self._v = _grown(self._k, k, start, room), _grown(self._v, v, start, room)
        self._k[:, :, start:end], self._v[:, :, start:end] = k, v
        self._length = end
        return self._k[:, :, :end], self._v[:, :, :end]

    @property
    def held(self) -> tuple[Tensor, Tensor] | None:
        """Keys and values that are kept, of the latest columns; None before the first."""
        if self._k is None or self._v is None:
            return None
        length = self._length if self.window is None else self._k.shape[2]
        return self._k[:, :, :length], self._v[:, :, :length]

    def repeat(self, n: int) -> None:
        """Make of each row n rows side by side."""
        if self._k is not None and self._v is not None:
            self._k, self._v = (t.repeat_interleave(n, dim=0) for t in (self._k, self._v))

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(t.untyped_storage().nbytes() for t in (self._k, self._v) if t is not None)


def _grown(old: Tensor | None, like: Tensor, length: int, room: int) -> Tensor:
    new = like.new_empty(*like.shape[:2], room, like.shape[3])
    if old is not None:
        new[:, :, :length] = old[:, :, :length]
    return new


@dataclass(slots=True)
class KVCache:
    """The cache of a whole model for one batch.

    Attributes:
        layers: One `LayerCache` a block.
        length: Columns read so far.
    """

    layers: list[LayerCache]
    length: int = field(default=0)

    @classmethod
    def empty(cls, n_layers: int, *, window: int | None, room: int = 0) -> "KVCache":
        """Return a cache of `n_layers` empty layers; `room` tokens a row need no second one."""
        return cls([LayerCache(window, room) for _ in range(n_layers)])

    def repeat(self, n: int) -> None:
        """Make of each row n rows side by side."""
        for layer in self.layers:
            layer.repeat(n)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(layer.nbytes for layer in self.layers)
