"""Tables and figure of the claim on which of Q, K and V can go."""

from collections.abc import Mapping, Sequence
from typing import Any

from assay.experiments.claim import Figure, Number, Table
from assay.measure.noise import PARTS

_SHOWN = 60  # characters of a sample
Rises = Mapping[tuple[str, int | str], Number]
"""The rise of the loss where a part is lost in a layer, or in all."""


def rises_table(rises: Rises, places: Sequence[int | str]) -> Table:
    """Return the rise of each part, layer by layer and in all."""
    rows: list[tuple[str | Number, ...]] = [
        (str(place), *(rises[part, place] for part in PARTS)) for place in places
    ]
    return Table("rises", ("layer", *PARTS), tuple(rows), dict.fromkeys(PARTS, ".3f"))


def texts_table(values: Mapping[str, Any]) -> Table:
    """Return what one model writes, whole and with each part lost."""
    written = {"intact": values["text"]} | {part: values[part]["text"] for part in PARTS}
    rows = tuple((name, " ".join(text.split())[:_SHOWN]) for name, text in written.items())
    return Table("texts", ("lost", "text"), rows)


def rises_figure(rises: Rises, bound: float) -> Figure:
    """Draw the rises beside the bound under which a part is spared."""
    rows = tuple(
        {"layer": str(place), "rise": rise.value, "low": rise.low, "high": rise.high, "part": part}
        for (part, place), rise in rises.items()
    )
    rules = (("x", bound),)
    return Figure(
        "rises", "dots", rows, "rise", "layer", "part", low="low", high="high", rules=rules
    )
