"""Table and figure of the claim on the shape of the softmax."""

from collections.abc import Mapping

from assay.experiments.claim import Figure, Number, Table

FIELDS = (
    "entropy_deficit_nats",
    "effective_share",
    "top1_mass",
    "top10_mass",
    "gini",
    "peak_over_uniform",
    "near_uniform_share",
)
Shapes = Mapping[str, Mapping[str, Number]]
"""By arm and field."""


def shapes_table(found: Shapes) -> Table:
    """Return every figure of every arm."""
    rows: list[tuple[str | Number, ...]] = [
        (arm, *numbers.values()) for arm, numbers in found.items()
    ]
    spec = dict.fromkeys(FIELDS, ".3f") | {"peak_over_uniform": ".2f"}
    return Table("shapes", ("arm", *FIELDS), tuple(rows), spec)


def shares_figure(found: Shapes, bound: float) -> Figure:
    """Draw both shares of every arm beside the bound they are held to."""
    rows = tuple(
        {
            "arm": arm,
            "share": numbers[field].value,
            "low": numbers[field].low,
            "high": numbers[field].high,
            "what": field,
        }
        for arm, numbers in found.items()
        for field in ("top10_mass", "near_uniform_share")
    )
    return Figure(
        "shares", "dots", rows, "share", "arm", "what", low="low", high="high",
        rules=(("x", bound),),
    )  # fmt: skip
