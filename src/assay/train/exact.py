"""Exact mode: a batch summed in one fixed order, however it is cut.

A sum of floating-point numbers depends on its order, so the gradient of a batch depends on the
micro-batches it is cut into. In exact mode it is computed in grains of a fixed size, each by
itself, and the grains are summed in the shape of a binary tree over their index: whoever holds
grains 2k and 2k + 1 can add them, and the bits come out the same for every cut between grains.
"""

from collections.abc import Sequence
from typing import final

from torch import Tensor


@final
class TreeSum:
    """The sum of lists of tensors, added pair by pair: ((0 + 1) + (2 + 3)) + (4 + 5), and so on.

    Holds one partial sum for each binary digit of the number added so far.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[int, list[Tensor]]] = []  # leaves below, sum

    def add(self, leaf: Sequence[Tensor]) -> None:
        """Take the next leaf; its tensors may be changed in place."""
        size, total = 1, list(leaf)
        while self._parts and self._parts[-1][0] == size:
            _, left = self._parts.pop()
            size, total = 2 * size, _sum(left, total)
        self._parts.append((size, total))

    def total(self) -> list[Tensor]:
        """Return the sum of all leaves; what is left over is folded in from the last.

        Raises:
            IndexError: If there is no leaf.
        """
        _, total = self._parts[-1]
        for _, left in reversed(self._parts[:-1]):
            total = _sum(left, total)
        self._parts = []
        return total


def _sum(left: list[Tensor], right: list[Tensor]) -> list[Tensor]:
    return [a.add_(b) for a, b in zip(left, right, strict=True)]
