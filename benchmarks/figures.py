"""The figures of docs/performance.md: readable in print, and without colour."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import results
from decoders import DECODERS
from entrants import ENTRANTS
from shapes import CPU_SHAPES, SHAPES
from turns import Spread, spread

_OURS, _THEIRS = "#6f9fd0", "#d4d4d4"
_PRINT: dict[Any, Any] = {
    "font.size": 8,
    "svg.hashsalt": "assay",  # the same results give the same bytes
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars beside each other.

    Attributes:
        title: Above them.
        speeds: By label, in tokens per second.
        limit: Drawn as a line; None for none.
    """

    title: str
    speeds: Mapping[str, Spread]
    limit: float | None


def draw_speeds(path: Path) -> None:
    """Draw a panel for each shape of training and each number of rows of decoding."""
    panels = [*_training_panels(), *_decoding_panels()]
    if not panels:
        return
    heights = [len(panel.speeds) + 1.5 for panel in panels]
    with mpl.rc_context(_PRINT):
        figure = Figure(
            figsize=(6.3, 0.17 * sum(heights) + 0.4 * len(panels)), layout="constrained"
        )
        grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
        for index, panel in enumerate(panels):
            _draw_bars(figure.add_subplot(grid[index]), panel)
        figure.savefig(path, metadata={"Date": None})


def _draw_bars(axes: Axes, panel: Panel) -> None:
    labels = list(panel.speeds)
    medians = [panel.speeds[label].median for label in labels]
    errors = np.array([[s.median - s.low, s.high - s.median] for s in panel.speeds.values()]).T
    colours = [_OURS if label.startswith("assay") else _THEIRS for label in labels]
    style = {"edgecolor": "black", "linewidth": 0.5, "error_kw": {"elinewidth": 0.8}}
    axes.barh(labels, medians, xerr=errors, color=colours, **style)
    axes.invert_yaxis()
    axes.set_title(panel.title, loc="left", fontsize=8, fontweight="bold")
    axes.set_xlabel("tokens per second; the whiskers are quartiles")
    if panel.limit is not None:
        axes.axvline(panel.limit, color="black", linestyle="--", linewidth=0.8)
        axes.text(panel.limit, -0.6, "limit", ha="right", va="bottom", fontsize=7)


def _training_panels() -> Iterator[Panel]:
    for name in CPU_SHAPES:
        found, shape = results.read(f"training-{name}"), SHAPES[name]
        if "rows" not in found:
            continue
        rate = max(spread(rates).median for rates in found["matmul_flops_per_s"].values())
        flops = [row["step_flops"] for key, row in found["rows"].items() if key != "assay-default"]
        yield Panel(
            f"training, {name} ({_machine(found)})",
            {
                ENTRANTS[key].label: spread(row["tokens_per_s"])
                for key, row in found["rows"].items()
            },
            rate / min(flops) * shape.step_tokens,
        )


def _decoding_panels() -> Iterator[Panel]:
    for rows in (1, 16):
        found = results.read(f"decoding-{rows}")
        if found:
            entrants = found["entrants"]
            speeds = {DECODERS[n].label: spread(row["tokens_per_s"]) for n, row in entrants.items()}
            title = f"decoding GPT-2 small, {rows} row{'s' * (rows > 1)} ({_machine(found)})"
            yield Panel(title, speeds, None)


def _machine(found: Mapping[str, Any]) -> str:
    return str(found["machine"]["device_name"])


_UNITS = {"T": "tokens", "L": "layers", "D": "channels", "B": "rows", "R": "replicas"}


def draw_growth(path: Path) -> None:
    """Draw time and memory of a training step against each size."""
    found = results.read("growth")
    if not found:
        return
    sweeps = found["sweeps"]
    with mpl.rc_context(_PRINT):
        figure = Figure(figsize=(6.3, 3.6), layout="constrained")
        axes = figure.subplots(2, len(sweeps), squeeze=False)
        for column, (letter, sweep) in enumerate(sweeps.items()):
            _draw_time(axes[0, column], sweep)
            _draw_memory(axes[1, column], sweep)
            axes[1, column].set_xlabel(f"{letter}, {_UNITS[letter]}")
        axes[0, 0].set_ylabel("step, ms")
        axes[1, 0].set_ylabel("memory, MB")
        lines = axes[0, 0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside upper center", ncols=3, frameon=False)
        figure.savefig(path, metadata={"Date": None})


def _draw_time(axes: Axes, sweep: Mapping[str, Any]) -> None:
    values = sweep["values"]
    x, fitted = _curve(values, sweep["fit_s"])
    axes.plot(x, 1e3 * fitted, color="black", linewidth=0.8, label="fit")
    axes.plot(values, [1e3 * s for s in sweep["step_s"]], "o", color=_OURS, ms=3, label="measured")
    closed = [1e3 * seconds for seconds in sweep["closed_form_s"]]
    axes.plot(values, closed, "--", color="black", linewidth=0.8, label="closed form")
    _from_zero(axes)


def _draw_memory(axes: Axes, sweep: Mapping[str, Any]) -> None:
    x, fitted = _curve(sweep["values"], sweep["fit_bytes"])
    axes.plot(x, fitted / 1e6, color="black", linewidth=0.8)
    axes.plot(sweep["values"], [n / 1e6 for n in sweep["added_bytes"]], "o", color=_OURS, ms=3)
    _from_zero(axes)


def _curve(values: Sequence[int], coefficients: Sequence[float]) -> tuple[Any, Any]:
    x = np.linspace(values[0], values[-1], 100)
    return x, np.polynomial.polynomial.polyval(x, coefficients)


def _from_zero(axes: Axes) -> None:
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
