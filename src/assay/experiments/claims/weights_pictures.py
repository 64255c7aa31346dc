"""Table and figure of the claim on the weights of each component."""

from collections.abc import Mapping

from assay.experiments.claim import Figure, Number, Table

STATES = ("untrained", "trained")
Shapes = Mapping[tuple[str, str, str], Number]
"""A figure of a component in a state, by (field, state, component)."""


def components_table(shapes: Shapes, growth: Mapping[str, Number]) -> Table:
    """Return width, growth and shape of every component, before and after training."""
    rows: list[tuple[str | Number, ...]] = [
        (
            component,
            *(shapes["std", state, component] for state in STATES),
            grown,
            *(shapes["excess_kurtosis", state, component] for state in STATES),
            *(shapes["normal_distance", state, component] for state in STATES),
        )
        for component, grown in growth.items()
    ]
    names = [f"{field}_{state}" for field in ("kurtosis", "distance") for state in STATES]
    columns = ("component", "std_untrained", "std_trained", "growth", *names)
    spec = {"std_untrained": ".4f", "std_trained": ".4f", "growth": ".2f"}
    return Table("components", columns, tuple(rows), spec | dict.fromkeys(names, ".3f"))


def kurtosis_figure(shapes: Shapes, bound: float) -> Figure:
    """Draw the excess kurtosis of every component beside the bound it is held to."""
    rows = tuple(
        {"component": component, "kurtosis": found.value, "low": found.low, "high": found.high,
         "state": state}
        for (field, state, component), found in shapes.items()
        if field == "excess_kurtosis"
    )  # fmt: skip
    return Figure(
        "kurtosis", "dots", rows, "kurtosis", "component", "state", low="low", high="high",
        rules=(("x", -bound), ("x", bound)),
    )  # fmt: skip
