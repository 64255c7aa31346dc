"""The curve of a run as a figure."""

import math
import os
from pathlib import Path
from typing import Any

from assay.runs.metrics import read_rows

_MEMORY = 50  # the smoothed loss remembers a fiftieth of the curve


def draw_curve(folder: Path, *, title: str, vocab_size: int) -> Path:
    """Draw `metrics.jsonl` of a run into `curve.png` and return its path.

    The training loss is shown raw, and as an exponential mean; the validation loss as points; ln V,
    the loss of a uniform guess, as a line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    uniform_nats = math.log(vocab_size)
    rows = list(read_rows(folder / "metrics.jsonl"))
    train, val = _points(rows, "train", "loss_nats"), _points(rows, "eval", "val_loss_nats")
    figure = Figure(figsize=(7.2, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axhline(uniform_nats, color="0.6", linestyle=":", linewidth=1)
    axes.annotate("ln V", (1, uniform_nats), xycoords=("axes fraction", "data"), color="0.4",
                  ha="right", va="bottom", fontsize=9)  # fmt: skip
    if train:
        steps, losses = zip(*train, strict=True)
        axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=1)
        axes.plot(steps, _smoothed(losses), color="tab:blue", label="training, smoothed")
    if val:
        steps, losses = zip(*val, strict=True)
        axes.plot(steps, losses, "o-", color="tab:orange", markersize=4, label="validation")
    axes.set(xlabel="step", ylabel="loss in nats per token", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.25)
    if train or val:
        axes.legend(frameon=False)
    path = folder / "curve.png"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")  # another process may be drawing it too
    figure.savefig(temporary, format="png")
    temporary.replace(path)
    return path


def _points(rows: list[dict[str, Any]], kind: str, field: str) -> list[tuple[int, float]]:
    """Return (step, value) of the rows of a kind; what a damaged row lacks is not drawn."""
    found = [(row["step"], row.get(field)) for row in rows if row.get("kind") == kind]
    return [(step, value) for step, value in found if isinstance(value, int | float)]


def _smoothed(values: tuple[float, ...]) -> list[float]:
    """Return exponential means, corrected for their start."""
    fresh = min(1.0, _MEMORY / len(values))
    out, mean, weight = [], 0.0, 0.0
    for value in values:
        if math.isfinite(value):
            mean += fresh * (value - mean)
            weight += fresh * (1 - weight)
        out.append(mean / weight if weight else math.nan)
    return out
