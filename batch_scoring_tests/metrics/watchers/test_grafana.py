"""Tests of the model that Grafana reads."""

from itertools import combinations
from typing import Any

from batch_scoring.metrics.watchers.dashboard import ROWS
from batch_scoring.metrics.watchers.grafana import WIDTH, Panel, Row, panels

DRAWN = list(panels(ROWS))


def test_ids_are_unique() -> None:
    assert len({panel["id"] for panel in DRAWN}) == len(DRAWN) > 20


def test_panels_lie_within_the_grid_and_do_not_overlap() -> None:
    assert all(0 <= panel["gridPos"]["x"] <= WIDTH - panel["gridPos"]["w"] for panel in DRAWN)
    assert [(one["title"], other["title"]) for one, other in combinations(DRAWN, 2) if overlap(one, other)] == []


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    mine, its = one["gridPos"], other["gridPos"]
    beside = mine["x"] + mine["w"] <= its["x"] or its["x"] + its["w"] <= mine["x"]
    above = mine["y"] + mine["h"] <= its["y"] or its["y"] + its["h"] <= mine["y"]
    return not (beside or above)


def test_rows_are_full_so_that_nothing_moves_up_in_grafana() -> None:
    for line in {panel["gridPos"]["y"] for panel in DRAWN}:
        assert sum(panel["gridPos"]["w"] for panel in DRAWN if panel["gridPos"]["y"] == line) == WIDTH


def test_a_panel_that_does_not_fit_starts_a_new_line() -> None:
    wide = Panel("a", "A.", {"": "x"}, unit="s", width=14)
    drawn = list(panels([Row("row", 5, (wide, wide))]))
    assert [panel["gridPos"] for panel in drawn] == [
        {"x": 0, "y": 0, "w": 24, "h": 1},
        {"x": 0, "y": 1, "w": 14, "h": 5},
        {"x": 0, "y": 6, "w": 14, "h": 5},
    ]


def test_every_panel_says_what_it_shows_in_which_unit() -> None:
    shown = [panel for panel in DRAWN if panel["type"] != "row"]
    assert all(panel["description"].endswith(".") for panel in shown)
    assert {panel["fieldConfig"]["defaults"]["unit"] for panel in shown} == {"none", "percentunit", "s", "short"}


def test_numbers_are_asked_for_now_and_lines_for_the_whole_range() -> None:
    targets = [(panel["type"], target) for panel in DRAWN for target in panel.get("targets", [])]
    kinds = {(kind, target["instant"], target["range"]) for kind, target in targets}
    assert kinds == {("stat", True, False), ("timeseries", False, True), ("state-timeline", False, True)}
