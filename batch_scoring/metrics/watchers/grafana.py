"""Panels and rows, and what Grafana reads of them: the classic model of a dashboard."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Json = dict[str, Any]
Kind = Literal["stat", "timeseries", "state-timeline"]
Thresholds = tuple[tuple[float, str], ...]
"""Values from which on there is another colour."""

WIDTH = 24
"""Columns of Grafana's grid."""
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """A panel with its queries."""

    title: str
    description: str
    queries: Mapping[str, str]
    """The legend of each expression; labels stand in double braces."""
    unit: str
    """One of Grafana's."""
    kind: Kind = "timeseries"
    width: int = 8
    thresholds: Thresholds = ()
    is_stacked: bool = False
    first_colour: str = "green"
    """Below all thresholds."""
    names_only: bool = False
    """Show the legend in place of the value."""
    words: tuple[str, str] = ("no", "yes")
    """What 0 and 1 mean in a timeline of states."""


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    height: int
    """Of each panel."""
    panels: tuple[Panel, ...]


def panels(rows: Sequence[Row]) -> Iterator[Json]:
    """Each row's heading and panels, from left to right and from top to bottom."""
    number = top = 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": _place(0, top, WIDTH, 1),
        }
        top += 1
        left = 0
        for panel in row.panels:
            if left + panel.width > WIDTH:
                left, top = 0, top + row.height
            number += 1
            yield {"id": number, **_drawn(panel), "gridPos": _place(left, top, panel.width, row.height)}
            left += panel.width
        top += row.height


def _place(left: int, top: int, width: int, height: int) -> Json:
    return {"x": left, "y": top, "w": width, "h": height}


def _drawn(panel: Panel) -> Json:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": list(_targets(panel)),
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
    }


def _targets(panel: Panel) -> Iterator[Json]:
    for letter, (legend, expression) in zip("ABC", panel.queries.items(), strict=False):
        yield {
            "refId": letter,
            "datasource": DATASOURCE,
            "expr": expression,
            "legendFormat": legend,
            "editorMode": "code",
            "instant": panel.kind == "stat",
            "range": panel.kind != "stat",
        }


def _field(panel: Panel) -> Json:
    steps = [{"color": panel.first_colour, "value": None}, *({"color": c, "value": v} for v, c in panel.thresholds)]
    field: Json = {"unit": panel.unit, "noValue": "none", "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        return {**field, "color": {"mode": "palette-classic"}, "custom": _lines(panel)}
    field["color"] = {"mode": "thresholds"}
    return {**field, "mappings": [_mapping(panel.words)]} if panel.kind == "state-timeline" else field


def _lines(panel: Panel) -> Json:
    return {
        "axisSoftMin": 0,
        "drawStyle": "line",
        "lineInterpolation": "stepAfter",
        "lineWidth": 2,
        "fillOpacity": 30 if panel.is_stacked else 0,
        "showPoints": "never",
        "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if panel.thresholds else "off"},
    }


def _mapping(words: tuple[str, str]) -> Json:
    """The words for 0 and 1; their colours are those of the thresholds."""
    options = {str(value): {"index": value, "text": word} for value, word in enumerate(words)}
    return {"type": "value", "options": options}


def _options(panel: Panel) -> Json:
    legend = {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}
    if panel.kind == "timeseries":
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    if panel.kind == "state-timeline":
        return {"showValue": "never", "mergeValues": True, "rowHeight": 0.8, "legend": {**legend, "showLegend": False}}
    return {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "name" if panel.names_only else "value_and_name",
    }
