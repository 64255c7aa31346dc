"""Spikes: values far above those just before them."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import numpy as np

WINDOW = 128
"""Values before the present one with which it is compared."""
DEVIATIONS = 7.0
"""How many standard deviations above their mean a spike lies."""
_LEAST = 32  # values before any is judged
_ROUNDING = 1e-6  # of the mean: values that differ by no more have no spread to speak of


@dataclass(frozen=True, slots=True)
class Spike:
    """A value far above those before it.

    Attributes:
        quantity: What spiked, such as loss_nats.
        value: How high.
        mean: Of the values before it.
        std: Of the values before it.
    """

    quantity: str
    value: float
    mean: float
    std: float


@final
class SpikeWatch:
    """Tells whether a value spikes: 7 standard deviations above the mean of the last 128.

    Source: Team OLMo 2024, arXiv:2501.00656, sec. 3.1 (the spike score, over a window of 1,000).
    """

    def __init__(self, quantity: str, before: Iterable[float] = ()) -> None:
        self._quantity = quantity
        self._before = deque(before, maxlen=WINDOW)

    @property
    def before(self) -> list[float]:
        """The values kept, oldest first: the whole state."""
        return list(self._before)

    def look(self, value: float) -> Spike | None:
        """Judge a value and keep it; one that is not finite is neither judged nor kept."""
        if not math.isfinite(value):
            return None
        spike = self._judge(value) if len(self._before) >= _LEAST else None
        self._before.append(value)
        return spike

    def _judge(self, value: float) -> Spike | None:
        before = np.array(self._before)
        mean, std = float(before.mean()), float(before.std(ddof=1))
        if value - mean <= DEVIATIONS * max(std, _ROUNDING * abs(mean)):
            return None
        return Spike(self._quantity, value, mean, std)
