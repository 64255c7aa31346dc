"""The figure of a study, as a Vega-Lite specification: for a page, and as a vector for a paper."""

from typing import Any

import vl_convert

from assay.experiments.report import UNITS
from assay.experiments.study import Study

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#595959"  # Okabe & Ito: told apart by everyone
_FONT = 12
_VERSION = "6.4"  # of Vega-Lite
Spec = dict[str, Any]


def differences_figure(study: Study) -> Spec:
    """Return the differences of every arm from the first: the mean, its interval, each seed."""
    unit, metric = UNITS[study.record.metric], study.record.metric
    axis = {"title": f"difference from {study.design.arms[0].name}, {unit} (left is better)"}
    arm = {"field": "arm", "type": "nominal", "sort": None, "title": None}
    number = {"type": "quantitative", "axis": axis}
    intervals = [
        {
            "arm": found.arm,
            "mean": found.mean,
            "low": found.interval.low,
            "high": found.interval.high,
            "verdict": found.word,
            "p (Holm)": found.p_holm,
            "pairs": found.n,
        }
        for found in study.comparisons()
        if found.interval is not None
    ]
    told = [{"field": name} for name in ("arm", "verdict", "mean", "low", "high", "p (Holm)")]
    seeds = _seeds(study, metric)
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": 560,
        "height": {"step": 44},
        "layer": [
            {
                "data": {"values": [{"zero": 0}]},
                "mark": {"type": "rule", "color": _GREY, "strokeDash": [4, 3]},
                "encoding": {"x": {"field": "zero", **number}},
            },
            {
                "data": {"values": seeds},
                "mark": {
                    "type": "tick",
                    "color": _ORANGE,
                    "thickness": 2,
                    "size": 14,
                    "yOffset": 12,
                },
                "encoding": {
                    "x": {"field": "difference", **number},
                    "y": arm,
                    "tooltip": [{"field": name} for name in ("arm", "seed", "difference", "run")],
                },
            },
            {
                "data": {"values": intervals},
                "mark": {"type": "rule", "color": _BLUE, "strokeWidth": 2.5},
                "encoding": {
                    "x": {"field": "low", **number},
                    "x2": {"field": "high"},
                    "y": arm,
                    "tooltip": told,
                },
            },
            {
                "data": {"values": intervals},
                "mark": {"type": "point", "filled": True, "size": 45, "color": _BLUE, "opacity": 1},
                "encoding": {"x": {"field": "mean", **number}, "y": arm, "tooltip": told},
            },
        ],
        "config": {
            "font": "sans-serif",
            "axis": {"labelFontSize": _FONT, "titleFontSize": _FONT, "labelLimit": 320},
            "view": {"stroke": None},
        },
    }


def _seeds(study: Study, metric: str) -> list[Spec]:
    """Return the difference under each seed under which both runs finished."""
    first, *others = study.outcomes().values()
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
    """Return a figure as SVG."""
    return vl_convert.vegalite_to_svg(spec, vl_version=_VERSION)


def png(spec: Spec) -> bytes:
    """Return a figure as PNG, at twice the size."""
    return vl_convert.vegalite_to_png(spec, vl_version=_VERSION, scale=2)


def library() -> str:
    """Return the JavaScript that draws figures in a page, which then needs no network."""
    code: str = vl_convert.javascript_bundle(None, vl_version=_VERSION)  # type: ignore[arg-type]
    return code
