"""Table and figure of the claim on where LayerNorm adds its ε."""

from collections.abc import Sequence

from assay.experiments.claim import Figure, Number, Table
from assay.experiments.tasks.norms import NormScales


def scales_table(scales: NormScales, outside: Sequence[float], under: Sequence[float]) -> Table:
    """Return both output scales at every tenfold σ; the last σ stands apart from the grid."""
    rows = tuple(
        (
            f"{sigma:g}",
            Number(f"outside_{i}", outside[i], of=(scales,)),
            Number(f"under_{i}", under[i], of=(scales,)),
            Number(f"apart_{i}", 1 - under[i] / outside[i], of=(scales,)),
        )
        for i, sigma in enumerate(scales.sigmas[:-1])
        if i % 4 == 0
    )
    spec = {"outside": ".3f", "under": ".3f", "apart": ".3%"}
    return Table("scales", ("sigma", "outside", "under", "apart"), rows, spec)


def scales_figure(
    scales: NormScales, outside: Sequence[float], under: Sequence[float], boundary: float
) -> Figure:
    """Draw both output scales over σ, with the boundary under which they part."""
    rows = tuple(
        {"sigma": sigma, "scale": found[i], "norm": name}
        for name, found in (("sigma", outside), ("layer", under))
        for i, sigma in enumerate(scales.sigmas[:-1])
    )
    rules = (("x", boundary),)
    return Figure("scales", "lines", rows, "sigma", "scale", "norm", log="x", rules=rules)
