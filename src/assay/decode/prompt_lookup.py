"""Drafts looked up in the text itself.

Source: Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding; Leviathan et al. 2023,
arXiv:2211.17192, for checking drafts in one pass.
"""

from collections.abc import Sequence
from typing import final

_LENGTHS = (4, 3, 2)


@final
class Lookup:
    """What followed the last time the text ended in its latest 4, 3 or 2 tokens."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}  # where what followed a few tokens begins
        self._n_seen = 0

    def draft(self, text: Sequence[int], limit: int) -> list[int]:
        """Return at most `limit` tokens that might follow; `text` may only have grown."""
        for end in range(self._n_seen + 1, len(text)):
            for length in _LENGTHS:
                if end >= length:
                    self._after[tuple(text[end - length : end])] = end
        self._n_seen = len(text) - 1
        for length in _LENGTHS:
            if (start := self._after.get(tuple(text[-length:]))) is not None:
                return list(text[start : start + max(0, limit)])
        return []
