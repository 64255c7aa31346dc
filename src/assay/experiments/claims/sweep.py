"""What writers wrote over a grid of settings: one number a seed, and their means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from assay.experiments.claim import Number
from assay.experiments.evidence import Evidence, Record
from assay.experiments.tasks.text import Written


@dataclass(frozen=True, slots=True)
class Sweep:
    """The evidence of `Written` tasks, one a seed, by setting.

    Attributes:
        grid: The setting of each sampling of the tasks, in order.
        tasks: One a seed.
        records: What came of each.
    """

    grid: tuple[float, ...]
    tasks: Sequence[Written]
    records: Sequence[Record]

    @classmethod
    def of(cls, grid: tuple[float, ...], tasks: Sequence[Written], evidence: Evidence) -> "Sweep":
        """Look the records up, once."""
        return cls(grid, tasks, [evidence[task] for task in tasks])

    def values(self, name: str, setting: float) -> list[float]:
        """Return a figure at a setting under each seed."""
        place = self.grid.index(setting)
        return [record.value(f"s{place}.{name}") for record in self.records]

    def number(self, name: str, setting: float, label: str = "") -> Number:
        """Return its mean, called NAME_LABEL; the setting is the label unless told."""
        label = label or f"{setting:g}".replace(".", "_")
        return Number.mean(f"{name}_{label}", self.values(name, setting), of=self.tasks)

    def of_people(self, name: str) -> Number:
        """Return the same figure of people's text, called NAME_people."""
        values = [record.value(f"human.{name}") for record in self.records]
        return Number.mean(f"{name}_people", values, of=self.tasks)

    def rise(self, name: str, a: float, b: float) -> list[float]:
        """Return by how much a figure is higher at setting b than at a, under each seed."""
        low, high = self.values(name, a), self.values(name, b)
        return [y - x for x, y in zip(low, high, strict=True)]

    def best(self, name: str) -> list[float]:
        """Return the setting at which a figure is lowest, under each seed."""
        lowest = self._table(name).argmin(1)  # of a row with NaN, the place of the NaN
        return [
            self.grid[place] if math.isfinite(row[place]) else math.nan
            for row, place in zip(self._table(name), lowest.tolist(), strict=True)
        ]

    def falls_under(self, name: str, bound: float) -> list[float]:
        """Return where a figure first goes under a bound, under each seed; NaN if it never does.

        Between two settings it is taken to be straight.
        """
        return [self._crossing(row.tolist(), bound) for row in self._table(name)]

    def _crossing(self, row: list[float], bound: float) -> float:
        if row[0] < bound:
            return self.grid[0]
        for (x, y), (right, lower) in pairwise(zip(self.grid, row, strict=True)):
            if lower < bound <= y:
                return x + (right - x) * (y - bound) / (y - lower)
        return math.nan

    def first_over_best(self, name: str) -> list[float]:
        """Return a figure at the first setting less that at the best other, under each seed.

        Which is the best the other seeds choose: chosen by the same seed, it would be too low.
        """
        table = self._table(name)
        means = (np.nanmean(np.delete(table, seed, axis=0), 0) for seed in range(len(table)))
        return [
            float(row[0] - row[1 + mean[1:].argmin()])
            for row, mean in zip(table, means, strict=True)
        ]

    def _table(self, name: str) -> NDArray[np.float64]:
        """Return a figure as (seeds, settings)."""
        return np.array([self.values(name, setting) for setting in self.grid]).T
