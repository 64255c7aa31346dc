"""Figures of claims as Vega-Lite, from rows and words: one function for each kind.

Series are told apart by colour (Okabe & Ito's, which everyone can) and by dash or shape, which
print keeps. Legends stand beside the data.
"""

from collections.abc import Mapping
from typing import Any

from assay.experiments.claim import Figure
from assay.experiments.words import FigureWords

Spec = dict[str, Any]
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
_DASHES = [[1, 0], [6, 3], [2, 2], [9, 3, 2, 3], [12, 4], [4, 1], [1, 3]]
_GREY = "#595959"
_FONT = 12
_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"


def draw(figure: Figure, words: FigureWords) -> Spec:
    """Return a figure as a Vega-Lite specification, its data inside."""
    rows = [_named(row, figure, words) for row in figure.rows]
    kinds = {"lines": _lines, "points": _points, "dots": _dots, "bars": _bars, "heat": _heat}
    layers = kinds[figure.kind](figure, words)
    body: Spec = {"layer": [*layers, *_rules(figure)]}
    sized: Spec = {"width": _width(figure), "height": _height(figure)}
    if figure.facet:
        facet = {"field": figure.facet, "type": "nominal", "title": words.facet or None}
        body = {"facet": {**facet, "sort": None}, "columns": 3, "spec": {**sized, **body}}
        sized = {}
    return {
        "$schema": _SCHEMA,
        "data": {"values": rows},
        **sized,
        **body,
        "config": {
            "font": "sans-serif",
            "axis": {"labelFontSize": _FONT, "titleFontSize": _FONT, "labelLimit": 320},
            "legend": {"labelFontSize": _FONT, "titleFontSize": _FONT, "labelLimit": 320},
            "header": {"labelFontSize": _FONT, "titleFontSize": _FONT},
            "view": {"stroke": None},
        },
    }


def _named(row: Mapping[str, Any], figure: Figure, words: FigureWords) -> Spec:
    """Return a row whose categories carry the names that words give them."""
    told = {field for field in (figure.series, figure.facet, figure.x, figure.y) if field}
    return {
        field: words.names.get(str(value), value) if field in told else value
        for field, value in row.items()
    }


def _lines(figure: Figure, words: FigureWords) -> list[Spec]:
    x, y = _axis(figure, words, "x"), _axis(figure, words, "y")
    told, apart = _told(figure), _series(figure, words)
    dashes = {"strokeDash": {**apart["color"], "scale": {"range": _DASHES}}} if apart else {}
    plain = _coloured("fill", apart)
    layers: list[Spec] = []
    if figure.low and figure.high:
        band = {"y": {**y, "field": figure.low}, "y2": {"field": figure.high}}
        mark = {"type": "area", "opacity": 0.18, "clip": True}
        layers.append({"mark": mark, "encoding": {"x": x, **band, **plain}})
    line, point = {"type": "line", "clip": True}, {"type": "point", "filled": True, "size": 35}
    layers.append({"mark": line, "encoding": {"x": x, "y": y, **apart, **dashes}})
    layers.append({"mark": {**point, "opacity": 1}, "encoding": {"x": x, "y": y, **plain, **told}})
    return layers


def _points(figure: Figure, words: FigureWords) -> list[Spec]:
    x, y = _axis(figure, words, "x"), _axis(figure, words, "y")
    apart = _series(figure, words)
    mark = {"type": "point", "filled": True, "size": 50, "opacity": 0.8}
    encoding = {"x": x, "y": y, **apart, **_shape(apart), **_told(figure)}
    return [{"mark": mark, "encoding": encoding}]


def _dots(figure: Figure, words: FigureWords) -> list[Spec]:
    x, y = _axis(figure, words, "x"), _axis(figure, words, "y", nominal=True)
    apart = _series(figure, words)
    offset = {"yOffset": {"field": figure.series, "sort": None}} if figure.series else {}
    layers: list[Spec] = []
    if figure.low and figure.high:
        ends = {"x": {**x, "field": figure.low}, "x2": {"field": figure.high}}
        rule = {"type": "rule", "strokeWidth": 2}
        plain = _coloured("stroke", apart)
        layers.append({"mark": rule, "encoding": {**ends, "y": y, **offset, **plain}})
    point = {"type": "point", "filled": True, "size": 55, "opacity": 1}
    encoding = {"x": x, "y": y, **offset, **apart, **_shape(apart), **_told(figure)}
    return [*layers, {"mark": point, "encoding": encoding}]


def _bars(figure: Figure, words: FigureWords) -> list[Spec]:
    x, y = _axis(figure, words, "x", nominal=True), _axis(figure, words, "y")
    apart = _series(figure, words)
    offset = {"xOffset": {"field": figure.series, "sort": None}} if figure.series else {}
    layers: list[Spec] = [
        {"mark": "bar", "encoding": {"x": x, "y": y, **offset, **apart, **_told(figure)}}
    ]
    if figure.low and figure.high:
        ends = {"y": {**y, "field": figure.low}, "y2": {"field": figure.high}}
        rule = {"type": "rule", "strokeWidth": 1.5, "color": "#000000"}
        layers.append({"mark": rule, "encoding": {"x": x, **ends, **offset}})
    return layers


def _heat(figure: Figure, words: FigureWords) -> list[Spec]:
    x, y = _axis(figure, words, "x", nominal=True), _axis(figure, words, "y", nominal=True)
    scale: Spec = {"scheme": "viridis"} | ({"type": "log"} if "value" in figure.log else {})
    colour = {
        "field": figure.value,
        "type": "quantitative",
        "title": words.value,
        "scale": scale,
    }
    encoding = {"x": x, "y": y, "color": colour, **_told(figure)}
    return [{"mark": {"type": "rect", "invalid": None}, "encoding": encoding}]


def _rules(figure: Figure) -> list[Spec]:
    mark = {"type": "rule", "color": _GREY, "strokeDash": [4, 3]}
    layers: list[Spec] = [
        {"mark": mark, "encoding": {axis: {"datum": place, "type": "quantitative"}}}
        for axis, place in figure.rules
    ]
    if figure.diagonal:
        ends = sorted(float(row[field]) for row in figure.rows for field in (figure.x, figure.y))
        rows = [{figure.x: end, figure.y: end} for end in (ends[0], ends[-1])]
        line = {"mark": {**mark, "type": "line"}, "data": {"values": rows}}
        axes = {
            axis: {"field": getattr(figure, axis), "type": "quantitative"} for axis in ("x", "y")
        }
        layers.append({**line, "encoding": axes})
    return layers


def _shape(apart: Spec) -> Spec:
    """Return the shape of points, told apart as their colour is."""
    return {"shape": {k: v for k, v in apart["color"].items() if k != "scale"}} if apart else {}


def _axis(figure: Figure, words: FigureWords, axis: str, *, nominal: bool = False) -> Spec:
    field: str = getattr(figure, axis)
    title: str = getattr(words, axis)
    if nominal:
        return {"field": field, "type": "nominal", "sort": None, "title": title or None}
    logarithmic = axis in figure.log.split()
    scale: Spec = {"type": "log", "nice": False} if logarithmic else {"zero": False}
    axis_spec = {"tickCount": 6, "gridOpacity": 0.6} if logarithmic else {"gridOpacity": 0.6}
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": scale,
        "axis": axis_spec,
    }


def _series(figure: Figure, words: FigureWords) -> Spec:
    if figure.series is None:
        return {}
    colour = {
        "field": figure.series,
        "type": "nominal",
        "sort": None,
        "title": words.series or None,
        "scale": {"range": _COLOURS},
    }
    return {"color": colour}


def _coloured(channel: str, apart: Spec) -> Spec:
    """Return the colour of a layer that leaves the legend to another, which has it as `color`."""
    return {channel: {**apart["color"], "legend": None}} if apart else {}


def _told(figure: Figure) -> Spec:
    """Return a tooltip with everything of a row."""
    names = list(figure.rows[0]) if figure.rows else []
    return {"tooltip": [{"field": name} for name in names]}


def _width(figure: Figure) -> int | Spec:
    if figure.kind in ("heat", "bars"):
        return {"step": 26 if figure.series else 44}
    return 230 if figure.facet else 520


def _height(figure: Figure) -> int | Spec:
    if figure.kind == "heat":
        return {"step": 26}
    if figure.kind == "dots":
        return {"step": 18, "for": "position"} if not figure.series else {"step": 14}
    return 200 if figure.facet else 300
