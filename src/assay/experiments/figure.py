"""The figure of a study, as a Vega-Lite specification: for a page, and as a vector for a paper."""

import functools
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import vl_convert

from assay.data.cache import cache_folder, open_entry
from assay.disk import read_bytes
from assay.errors import DataError
from assay.experiments.report import UNITS
from assay.experiments.results import Results

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#595959"  # Okabe & Ito: told apart by everyone
_CLIP = re.compile(r"\bclip\d+\b")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_FONT = 12
_VERSION = "6.4"  # of Vega-Lite
_LIBRARY, _MOST_LIBRARY = "library.js", 1 << 24
Spec = dict[str, Any]
_ARM: Spec = {"field": "arm", "type": "nominal", "sort": None, "title": None}


def differences_figure(results: Results) -> Spec:
    """Return the differences of every arm from the first: the mean, its interval, each seed."""
    metric, study = results.study.record.metric, results.study
    unit = UNITS[metric]
    title = f"difference from {study.design.arms[0].name}, {unit} (left is better)"
    number = {"type": "quantitative", "axis": {"title": title}}
    intervals = _intervals(results)
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": 560,
        "height": {"step": 44},
        "layer": [
            _layer([{"zero": 0}], {"type": "rule", "color": _GREY, "strokeDash": [4, 3]},
                   {"x": {"field": "zero", **number}}),
            _layer(_seeds(results, metric),
                   {"type": "tick", "color": _ORANGE, "size": 14, "yOffset": 12},
                   {"x": {"field": "difference", **number}, "y": _ARM}),
            _layer(intervals, {"type": "rule", "color": _BLUE, "strokeWidth": 2.5},
                   {"x": {"field": "low", **number}, "x2": {"field": "high"}, "y": _ARM}),
            _layer(intervals,
                   {"type": "point", "filled": True, "size": 45, "color": _BLUE, "opacity": 1},
                   {"x": {"field": "mean", **number}, "y": _ARM}),
            *_documents(results, number),
        ],
        "config": {
            "font": "sans-serif",
            "axis": {"labelFontSize": _FONT, "titleFontSize": _FONT, "labelLimit": 320},
            "view": {"stroke": None},
        },
    }  # fmt: skip


def _documents(results: Results, number: Spec) -> list[Spec]:
    """Return a layer of the intervals over seeds and documents, where there are any."""
    rows = [
        {"arm": found.arm, "low": found.documents.low, "high": found.documents.high}
        for found in results.comparisons
        if found.documents
    ]
    mark = {"type": "rule", "color": _GREY, "strokeWidth": 1, "yOffset": -9}
    ends = {"x": {"field": "low", **number}, "x2": {"field": "high"}, "y": _ARM}
    return [_layer(rows, mark, ends)] if rows else []


def _layer(rows: list[Spec], mark: Spec, encoding: Spec) -> Spec:
    """Return one layer; the pointer over a mark shows all of its row."""
    told = [{"field": name} for name in rows[0]] if rows else []
    return {"data": {"values": rows}, "mark": mark, "encoding": {**encoding, "tooltip": told}}


def _intervals(results: Results) -> list[Spec]:
    return [
        {
            "arm": found.arm,
            "verdict": found.word,
            "mean": found.mean,
            "low": found.interval.low,
            "high": found.interval.high,
            "p (Holm)": found.p_holm,
            "pairs": found.n,
        }
        for found in results.comparisons
        if found.interval is not None
    ]


def _seeds(results: Results, metric: str) -> list[Spec]:
    """Return the difference under each seed under which both runs finished."""
    first, *others = results.outcomes.values()
    rows = [
        {
            "arm": run.arm,
            "seed": run.seed,
            "difference": run.value(metric) - base.value(metric),
            "run": f"cells/{run.key}",
        }
        for arm in others
        for base, run in zip(first, arm, strict=True)
    ]
    return [row for row in rows if row["difference"] == row["difference"]]


def svg(spec: Spec) -> str:
    """Return a figure as SVG: the same figure, the same bytes.

    What XML cannot hold, such as a control character in a name, is drawn as U+FFFD: the library
    would end the process at it.
    """
    drawn = vl_convert.vegalite_to_svg(_drawable(spec), vl_version=_VERSION)
    seen: dict[str, str] = {}  # ids of clips go on from the figures drawn before
    return _CLIP.sub(lambda found: seen.setdefault(found[0], f"clip{len(seen) + 1}"), drawn)


def _drawable(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, str):
        return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list | tuple):
        return [_drawable(each) for each in value]
    if isinstance(value, Mapping):
        return {_drawable(name): _drawable(each) for name, each in value.items()}
    return value


@functools.cache
def library() -> str:
    """Return the JavaScript that draws figures in a page, which then needs no network.

    It takes seconds to put together, and so is kept in the cache folder.
    """
    made_by = metadata.version("vl-convert-python")
    entry = cache_folder(None) / "figures" / f"vega-lite-{_VERSION}-by-{made_by}"
    try:
        open_entry(entry, _write_library)
        return read_bytes(entry / _LIBRARY, _MOST_LIBRARY).decode()
    except (DataError, OSError, ValueError):  # a cache is no condition of a page
        return _library()


def _write_library(folder: Path) -> None:
    (folder / _LIBRARY).write_bytes(_library().encode())


def _library() -> str:
    code: str = vl_convert.javascript_bundle(None, vl_version=_VERSION)  # type: ignore[arg-type]
    return code
