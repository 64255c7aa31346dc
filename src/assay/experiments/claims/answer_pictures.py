"""Table and figure of the claim on copy, reverse and addition."""

import math
from collections.abc import Mapping

from assay.data.synthetic import TRAINED_LENGTH
from assay.experiments.claim import Figure, Number, Table
from assay.experiments.claims.answers import LENGTHS, Found


def answers_table(found: Found, numbers: Mapping[str, Number]) -> Table:
    """Return the share of right answers within the lengths trained on, and beyond."""
    rows = tuple(
        (problem, kind, numbers[f"{problem}_{kind}_within"], numbers[f"{problem}_{kind}"])
        for problem, arms in found.items()
        for kind in arms
    )
    columns = ("task", "encoding", "within", "beyond")
    return Table("answers", columns, rows, dict.fromkeys(columns, ".2f"))


def lengths_figure(found: Found) -> Figure:
    """Draw it over the length, a panel for each task."""
    points = [
        (problem, kind, length, arm.number("", (length,)))
        for problem, arms in found.items()
        for kind, arm in arms.items()
        for length in LENGTHS
    ]
    rows = tuple(
        {
            "length": length,
            "share": number.value,
            "low": number.low,
            "high": number.high,
            "encoding": kind,
            "task": problem,
        }
        for problem, kind, length, number in points
        if math.isfinite(number.value)
    )
    return Figure(
        "by_length", "lines", rows, "length", "share", "encoding", "low", "high", facet="task",
        rules=(("x", TRAINED_LENGTH),),
    )  # fmt: skip
