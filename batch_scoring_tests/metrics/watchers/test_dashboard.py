"""Tests of the dashboard: every query is asked of a real Prometheus."""

import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from batch_scoring.metrics.catalogue import METRICS
from batch_scoring.metrics.watchers.dashboard import ROWS, dashboard
from batch_scoring.metrics.watchers.grafana import Json, Panel
from batch_scoring_tests.metrics.watchers.conftest import PIPELINES
from batch_scoring_tests.monitoring_servers import Prometheus, get

PANELS = [panel for row in ROWS for panel in row.panels]
QUERIES = [pytest.param(panel, legend, id=f"{panel.title}: {legend}") for panel in PANELS for legend in panel.queries]
NOT_SHOWN = {
    "last_success_timestamp_seconds",  # the newest day says more
    "pipeline_broken",  # an alert
    "state_read_timestamp_seconds",  # the same
}


def filled(expression: str, pipelines: str) -> str:
    """An expression, as Grafana asks for it."""
    return expression.replace("$pipeline", pipelines).replace("$__range", "1h")


def names(legend: str) -> set[str]:
    return set(re.findall(r"\{\{(\w+)\}\}", legend))


@pytest.mark.parametrize(("panel", "legend"), QUERIES)
def test_every_query_finds_series_with_the_labels_of_its_legend(
    panel: Panel, legend: str, prometheus: Prometheus
) -> None:
    found = prometheus.query(filled(panel.queries[legend], "(churn|fraud)"))
    assert found
    assert names(legend)
    assert all(names(legend) <= series["metric"].keys() for series in found)
    legends = [re.sub(r"\{\{(\w+)\}\}", lambda name, of=series: of["metric"][name[1]], legend) for series in found]
    assert len(set(legends)) == len(found), "two lines with one name"


@pytest.mark.parametrize(("panel", "legend"), QUERIES)
def test_a_pipeline_that_is_not_chosen_is_not_shown(panel: Panel, legend: str, prometheus: Prometheus) -> None:
    found = prometheus.query(filled(panel.queries[legend], "churn"))
    assert {series["metric"].get("pipeline", "churn") for series in found} == {"churn"}


def test_the_variable_offers_the_pipelines(prometheus: Prometheus) -> None:
    [_, variable] = dashboard()["templating"]["list"]
    [metric, label] = re.findall(r"\w+", variable["query"]["query"].removeprefix("label_values"))
    assert get(f"{prometheus.address}/api/v1/label/{label}/values?match[]={metric}")["data"] == list(PIPELINES)


def test_every_metric_is_shown_or_left_out_on_purpose() -> None:
    shown = " ".join(expression for panel in PANELS for expression in panel.queries.values())
    left_out = {metric.name for metric in METRICS if not re.search(rf"\b{metric.full_name}\b", shown)}
    assert left_out == NOT_SHOWN


def test_grafana_s_own_types_read_it_without_loss() -> None:
    assert list(lost(dashboard())) == []


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("templating", "list", 1),
        ("panels", 1, "gridPos"),
        ("panels", 1, "options"),
        ("panels", 11, "targets", 0),
        ("panels", 11, "fieldConfig", "defaults", "custom"),
    ],
    ids=str,
)
def test_a_misspelt_key_is_found(path: tuple[str | int, ...]) -> None:
    planted = dashboard()
    part: Any = planted
    for name in path:
        part = part[name]
    part["colour"] = "red"
    assert [place.rpartition(".")[2] for place in lost(planted)] == ["colour"]


def lost(ours: Json) -> Iterator[str]:
    """What Grafana's own types do not know of a dashboard, and of the parts that these leave open."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there is a newer model, which older Grafanas do not read
        from grafana_foundation_sdk.models import dashboard as whole
        from grafana_foundation_sdk.models import prometheus, stat, statetimeline, timeseries

        kinds: dict[str, Any] = {"stat": stat, "timeseries": timeseries, "state-timeline": statetimeline}
        yield from _lost(ours, whole.Dashboard)
        for panel in ours["panels"]:
            for target in panel.get("targets", []):
                yield from _lost(target, prometheus.Dataquery)
            if "options" in panel:
                yield from _lost(panel["options"], kinds[panel["type"]].Options)
            if "custom" in (field := panel.get("fieldConfig", {}).get("defaults", {})):
                yield from _lost(field["custom"], kinds[panel["type"]].FieldConfig)


def _lost(ours: Json, of: Any) -> Iterator[str]:  # noqa: ANN401  (a class of the library)
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    return _differences(ours, json.loads(JSONEncoder().encode(of.from_json(ours))), of.__name__)


def _differences(ours: object, read: object, place: str) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(read, dict):
        for key, value in ours.items():
            if value is not None:
                yield from _differences(value, read.get(key), f"{place}.{key}")
    elif isinstance(ours, list) and isinstance(read, list) and len(ours) == len(read):
        for index, (value, other) in enumerate(zip(ours, read, strict=True)):
            yield from _differences(value, other, f"{place}[{index}]")
    elif ours != read:
        yield place
