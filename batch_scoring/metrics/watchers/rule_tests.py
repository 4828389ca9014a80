"""Unit tests of the alert rules for `promtool test rules`: what raises each alert, and what does not.

They are installed beside the rules, for whoever changes a threshold.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from batch_scoring.metrics.catalogue import (
    DAEMON_HEARTBEAT,
    DAMAGED_DOCUMENTS,
    DAY_CHECK_PASSED,
    DAY_ROWS,
    EXPORTS_PENDING,
    FAILED_PARTITIONS,
    IN_PROGRESS_SINCE,
    INSTANCE_READABLE,
    NEWEST_DAY,
    NEWEST_DAY_LIMIT,
    PIPELINE_BROKEN,
    STATE_READ_TIMESTAMP,
    STATE_READABLE,
    Metric,
)
from batch_scoring.metrics.watchers.alert_rules import ALERTS
from batch_scoring.metrics.watchers.promql import JOB
from batch_scoring.metrics.watchers.series import notation

Series = Mapping[str, str]
"""Samples, one a minute, by series."""

PIPELINE = "churn"
_DAY = 24 * 60
"""Minutes."""
_STEP = 4
"""Minutes between the scrapes of the fortnight: just below the five after which a sample no longer counts."""


def files(rule_file: str) -> dict[str, dict[str, Any]]:
    """The tests by the name of their file, as promtool reads them. A file has one interval of evaluation."""
    exact = [*(boundary.as_test() for boundary in boundaries()), *continuity()]
    return {
        "rules_test.yml": {"rule_files": [rule_file], "evaluation_interval": "1m", "tests": exact},
        "fortnight_test.yml": {
            "rule_files": [rule_file],
            "evaluation_interval": f"{_STEP}m",
            "tests": [fortnight()],
        },
    }


def series(metric: Metric, *labels: str, pipeline: str = PIPELINE, instance: str = "exporter-1:9464") -> str:
    """A series, as Prometheus stores it. `labels`: values of the metric's labels after the pipeline."""
    values = (pipeline, *labels) if "pipeline" in metric.labels else labels
    own = dict(zip(metric.labels, values, strict=True))
    return _series(metric.full_name, **own, instance=instance, job=JOB)


def _series(name: str, **labels: str) -> str:
    return f"{name}{{{', '.join(f'{label}={value!r}'.replace(chr(39), chr(34)) for label, value in labels.items())}}}"


def constant(value: int) -> str:
    """The same value for five days."""
    return f"{value}+0x{5 * _DAY}"


@dataclass(frozen=True)
class Boundary:
    """Both sides of the boundary from which on an alert fires."""

    alert: str
    series: Series
    quiet: str
    """The last minute without the alert."""
    fires: str
    """The first minute with it."""
    value: str = ""
    """As it stands in the texts of the alert."""
    labels: Mapping[str, str] = field(default_factory=lambda: {"pipeline": PIPELINE, "job": JOB})
    """Of the one series that raises it."""

    def as_test(self) -> dict[str, Any]:
        """The test, as promtool reads it."""
        alert = next(alert for alert in ALERTS if alert.name == self.alert)
        expected = {
            "exp_labels": {"severity": alert.severity, **self.labels},
            "exp_annotations": {
                "summary": _rendered(alert.summary, self.labels, self.value),
                "description": _rendered(alert.description, self.labels, self.value),
                "runbook_url": alert.link,
            },
        }
        return _test(
            f"{alert.name} fires at {self.fires}, not at {self.quiet}",
            self.series,
            alert_rule_test=[
                {"eval_time": self.quiet, "alertname": alert.name, "exp_alerts": []},
                {"eval_time": self.fires, "alertname": alert.name, "exp_alerts": [expected]},
            ],
        )


def _rendered(text: str, labels: Mapping[str, str], value: str) -> str:
    """A text of an alert, as Prometheus fills it in."""
    filled = re.sub(r"\{\{ \$labels\.(\w+) }}", lambda found: labels[found[1]], text)
    return re.sub(r"\{\{ \$value.*? }}", value, filled)


def _test(name: str, samples: Series, *, interval: str = "1m", **expected: object) -> dict[str, Any]:
    return {
        "name": name,
        "interval": interval,
        "input_series": [{"series": one, "values": values} for one, values in samples.items()],
        **expected,
    }


def boundaries() -> Iterator[Boundary]:
    """The boundary of every alert; of those with two conditions, both."""
    limit, began = 60 * 3600, -59 * 3600
    yield Boundary(
        "BatchScoringDayMissing",
        {
            series(NEWEST_DAY): constant(began),
            series(NEWEST_DAY_LIMIT): constant(limit),
            series(NEWEST_DAY, pipeline="fraud"): constant(began),
            series(NEWEST_DAY_LIMIT, pipeline="fraud"): constant(limit + 3600),
        },
        "1h",
        "1h1m",
        "2d 12h 1m 0s",
    )
    yield Boundary(
        "BatchScoringNoScoredDay",
        {
            series(STATE_READABLE): constant(1),
            series(STATE_READABLE, pipeline="fraud"): constant(1),
            series(NEWEST_DAY, pipeline="fraud"): constant(0),
            series(STATE_READABLE, pipeline="unreadable"): constant(0),
        },
        "35h59m",
        "36h",
    )
    yield Boundary("BatchScoringDayStuck", {series(IN_PROGRESS_SINCE): constant(0)}, "1h", "1h1m", "1h 1m 0s")
    yield Boundary("BatchScoringDayFailed", {series(FAILED_PARTITIONS): constant(2)}, "59m", "1h", "2")
    yield Boundary(
        "BatchScoringRowsFailed",
        {
            series(DAY_ROWS, "scored"): constant(1_000_000),
            series(DAY_ROWS, "rejected"): "40+0x9 41+0x9",
            series(DAY_ROWS, "unscored"): constant(60),
        },
        "9m",
        "10m",
        "101",
    )
    yield Boundary(
        "BatchScoringFewRowsScored",
        {
            series(DAY_ROWS, "scored"): "950+0x9 949+0x9",
            series(DAY_ROWS, "rejected"): "50+0x9 51+0x9",
            series(DAY_ROWS, "unscored"): constant(0),
            series(DAY_ROWS, "scored", pipeline="empty"): constant(0),
            series(DAY_ROWS, "rejected", pipeline="empty"): constant(0),
        },
        "9m",
        "10m",
        "94.9%",
    )
    yield Boundary(
        "BatchScoringCheckFailed",
        {
            series(DAY_CHECK_PASSED, "predictions", "scores_are_usual"): "1+0x9 0+0x9",
            series(DAY_CHECK_PASSED, "predictions", "rows_are_conserved"): constant(1),
        },
        "9m",
        "10m",
        labels={"pipeline": PIPELINE, "job": JOB, "asset": "predictions", "check": "scores_are_usual"},
    )
    yield Boundary(
        "BatchScoringExportBehind",
        {series(EXPORTS_PENDING, "calls"): constant(1), series(EXPORTS_PENDING, "results"): constant(0)},
        "59m",
        "1h",
        "1",
        labels={"pipeline": PIPELINE, "job": JOB, "export": "calls"},
    )
    yield Boundary("BatchScoringPipelineBroken", {series(PIPELINE_BROKEN): constant(1)}, "9m", "10m")
    yield Boundary("BatchScoringStateUnreadable", {series(STATE_READABLE): constant(0)}, "9m", "10m")
    yield Boundary("BatchScoringStateUnreadable", {series(STATE_READ_TIMESTAMP): constant(0)}, "25m", "26m")
    yield Boundary("BatchScoringDocumentsDamaged", {series(DAMAGED_DOCUMENTS): constant(1)}, "14m", "15m", "1")
    yield Boundary(
        "BatchScoringDaemonSilent",
        {series(DAEMON_HEARTBEAT, "SENSOR"): constant(0)},
        "10m",
        "11m",
        "11m 0s",
        labels={"job": JOB, "daemon": "SENSOR"},
    )
    yield Boundary(
        "BatchScoringInstanceUnreadable", {series(INSTANCE_READABLE): constant(0)}, "9m", "10m", labels={"job": JOB}
    )
    down = {_series("up", instance="exporter-1:9464", job=JOB): constant(0)}
    yield Boundary("BatchScoringExporterUnseen", down, "9m", "10m", labels={"job": JOB})
    yield Boundary("BatchScoringExporterUnseen", {}, "9m", "10m", labels={})


def continuity() -> Iterator[dict[str, Any]]:
    """An alert that fires stays the same one while scrapes are lost, and when another pod takes over."""
    count = 'count_over_time(ALERTS{alertstate="firing", alertname="%s"}[2h])'
    stuck = _series(
        "ALERTS",
        alertname="BatchScoringDayStuck",
        alertstate="firing",
        job=JOB,
        pipeline=PIPELINE,
        severity="critical",
    )
    yield _test(
        "A stuck day is one alert while the exporter restarts in another pod",
        {
            series(IN_PROGRESS_SINCE, instance="pod-1:9464"): notation([*[0] * 80, None]),
            series(IN_PROGRESS_SINCE, instance="pod-2:9464"): notation([*[None] * 90, *[0] * 31]),
        },
        promql_expr_test=[
            {
                "expr": count % "BatchScoringDayStuck",
                "eval_time": "2h",
                "exp_samples": [{"labels": stuck.removeprefix("ALERTS"), "value": 60}],
            }
        ],
    )
    yield _test(
        "Lost scrapes do not start the wait for a failed day anew",
        {series(FAILED_PARTITIONS): notation([1, 1, 1, None, None, 1, 1, None] * 8)},
        promql_expr_test=[
            {
                "expr": 'count(ALERTS{alertname="BatchScoringDayFailed", alertstate="firing"})',
                "eval_time": "1h",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
        ],
    )


def fortnight() -> dict[str, Any]:
    """Two weeks of a healthy deployment, with what happens in one, raise no alert."""
    samples = {
        name: notation([value(minute) for minute in range(0, 14 * _DAY, _STEP)]) for name, value in _life().items()
    }
    return _test(
        "A fortnight with lost scrapes, a restart, and a day that failed and recovered raises no alert",
        samples,
        interval=f"{_STEP}m",
        promql_expr_test=[
            {"expr": 'count_over_time(ALERTS{alertstate="firing"}[14d])', "eval_time": "14d", "exp_samples": []}
        ],
    )


_SCORED_AT = 2 * 60 + 30
"""Minute of the morning at which the day before is scored."""
_STARTED_AT = _SCORED_AT - 50
_FAILED_DAY = 6
_FAILED_AT, _TRIED_AGAIN_AT = _STARTED_AT + 20, _STARTED_AT + 44
_UNSEEN = (
    range(500, 504),
    range(3 * _DAY + _STARTED_AT + 30, 3 * _DAY + _STARTED_AT + 34),
    range(_FAILED_DAY * _DAY + _FAILED_AT + 10, _FAILED_DAY * _DAY + _FAILED_AT + 14),
    range(9 * _DAY + _SCORED_AT - 2, 9 * _DAY + _SCORED_AT + 6),
)
"""When the exporter did not answer: three lost scrapes and a restart."""
_STORE_SILENT = range(11 * _DAY + 100, 11 * _DAY + 108)


def _life() -> dict[str, Callable[[int], int | None]]:
    """The value of each series by minute."""
    exported: dict[str, Callable[[int], int | None]] = {
        series(STATE_READABLE): lambda minute: int(minute not in _STORE_SILENT),
        series(STATE_READ_TIMESTAMP): lambda minute: 60 * (_STORE_SILENT.start if minute in _STORE_SILENT else minute),
        series(NEWEST_DAY): lambda minute: 60 * _DAY * ((minute - _SCORED_AT) // _DAY - 1),
        series(NEWEST_DAY_LIMIT): lambda minute: 60 * 3600,
        series(IN_PROGRESS_SINCE): _in_progress_since,
        series(FAILED_PARTITIONS): lambda minute: int(_is_failed(minute)),
        series(DAY_ROWS, "scored"): lambda minute: 10_000,
        series(DAY_ROWS, "rejected"): lambda minute: 60 + (minute - _SCORED_AT) // _DAY,
        series(DAY_ROWS, "unscored"): lambda minute: 0,
        series(DAY_CHECK_PASSED, "predictions", "rows_are_conserved"): lambda minute: 1,
        series(EXPORTS_PENDING, "calls"): lambda minute: int(_SCORED_AT <= minute % _DAY < _SCORED_AT + 20),
        series(DAMAGED_DOCUMENTS): lambda minute: 0,
        series(PIPELINE_BROKEN): lambda minute: 0,
        series(INSTANCE_READABLE): lambda minute: 1,
        series(DAEMON_HEARTBEAT, "SENSOR"): lambda minute: 60 * (minute - minute % 4),
    }
    scraped = {name: _where_scraped(value) for name, value in exported.items()}
    return {**scraped, _series("up", instance="exporter-1:9464", job=JOB): lambda minute: int(_is_scraped(minute))}


def _where_scraped(value: Callable[[int], int | None]) -> Callable[[int], int | None]:
    return lambda minute: value(minute) if _is_scraped(minute) else None


def _is_scraped(minute: int) -> bool:
    return not any(minute in unseen for unseen in _UNSEEN)


def _is_failed(minute: int) -> bool:
    return minute // _DAY == _FAILED_DAY and _FAILED_AT <= minute % _DAY < _TRIED_AGAIN_AT


def _in_progress_since(minute: int) -> int | None:
    started = _TRIED_AGAIN_AT if minute // _DAY == _FAILED_DAY and minute % _DAY >= _TRIED_AGAIN_AT else _STARTED_AT
    runs = started <= minute % _DAY < _SCORED_AT and not _is_failed(minute)
    return 60 * (minute // _DAY * _DAY + started) if runs else None
