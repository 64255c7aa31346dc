"""Claims: one sentence that can be false, what is to be computed, and how it is judged.

A claim's words, in English and Vietnamese, stand in a TOML file beside its module; here are only
what is computed and what follows from it. `judge` is a pure function of the evidence.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from assay.citation import Citation
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.statistics import LEVEL, t_interval
from assay.experiments.tasks import Task

Budget = Literal["quick", "laptop", "full"]
BUDGETS: tuple[Budget, ...] = ("quick", "laptop", "full")
Verdict = Literal[
    "confirmed",
    "refuted",
    "holds only when",
    "equivalent",
    "not resolved",
    "not testable here",
]


@dataclass(frozen=True, slots=True)
class Number:
    """A number that a report may quote, and what it stands on.

    `format(number, ".3f")` gives it with its interval, where it has one.

    Attributes:
        id: Its name within the claim.
        value: NaN where there is none to be had.
        low: Of its interval.
        high: Of its interval.
        level: Confidence of the interval.
        unit: As written behind it; empty for ratios and counts.
        of: The tasks it was computed from; none for plain arithmetic.
    """

    id: str
    value: float
    low: float | None = None
    high: float | None = None
    level: float = LEVEL
    unit: str = ""
    of: tuple[Task, ...] = ()

    @classmethod
    def mean(
        cls, name: str, values: Sequence[float], *, of: Sequence[Task], unit: str = ""
    ) -> "Number":
        """Return the mean of independent values with Student's interval; NaNs are left out."""
        found = np.array([value for value in values if math.isfinite(value)])
        if len(found) < 2:
            return cls(name, float(found[0]) if len(found) else math.nan, unit=unit, of=tuple(of))
        ends = t_interval(found)
        return cls(name, float(found.mean()), ends.low, ends.high, ends.level, unit, tuple(of))

    @classmethod
    def difference(
        cls, name: str, found: Comparison, *, of: Sequence[Task], unit: str = ""
    ) -> "Number":
        """Return the mean difference of a comparison, at the level Holm's method left to it."""
        if found.interval is None:
            return cls(name, found.mean, unit=unit, of=tuple(of))
        ends = found.interval
        return cls(name, found.mean, ends.low, ends.high, ends.level, unit, tuple(of))

    def __format__(self, spec: str) -> str:
        if not math.isfinite(self.value):
            return "-"
        text = format(self.value, spec)
        if self.low is None or self.high is None:
            return text
        return f"{text} [{self.low:{spec}}, {self.high:{spec}}]"


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that the article's sentence says, judged; its words are `parts.ID` of the claim."""

    id: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns; title and headings are the words `tables.ID`.

    Attributes:
        id: Its name within the claim.
        columns: Ids; the words give their headings.
        rows: Text as it is, or numbers.
        spec: How the numbers of each column are formatted.
    """

    id: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | Number, ...], ...]
    spec: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Figure:
    """Rows to be drawn; title, axes and the names of what is told apart are `figures.ID`.

    Attributes:
        id: Its name within the claim.
        kind: `lines` over x; `points` of pairs; `dots` of rows with intervals along x; `bars`;
            `heat` over x and y.
        rows: Plain mappings.
        x: Field along the horizontal axis.
        y: Field along the vertical axis.
        series: Field told apart by colour and shape.
        low: Field with the lower end of an interval (of y for lines, of x for dots).
        high: Field with the upper end.
        value: Field shown by colour, for `heat`.
        facet: Field that makes small multiples side by side.
        log: Axes on a logarithmic scale, of "x", "y", "value".
        rules: Reference lines, ("x" or "y", where).
        diagonal: Whether the line y = x is drawn.
    """

    id: str
    kind: Literal["lines", "points", "dots", "bars", "heat"]
    rows: tuple[Mapping[str, Any], ...]
    x: str
    y: str
    series: str | None = None
    low: str | None = None
    high: str | None = None
    value: str | None = None
    facet: str | None = None
    log: str = ""
    rules: tuple[tuple[str, float], ...] = ()
    diagonal: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """What follows from the evidence: the verdict on the whole, on each part, and the numbers."""

    verdict: Verdict
    parts: tuple[Part, ...]
    numbers: tuple[Number, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of the article, or one beyond it.

    Attributes:
        id: As typed: `tying-parameters`.
        section: Of the article; "beyond" for what it does not say.
        tasks: What is to be computed with what is known so far; asked again until it names nothing
            new, so that a boundary can be searched and seeds added.
        judge: What follows; called once every task has its record.
        sources: Papers that said something about it.
    """

    id: str
    section: str
    tasks: Callable[[Budget, Evidence], Sequence[Task]]
    judge: Callable[[Budget, Evidence], Judgement]
    sources: tuple[Citation, ...] = ()
