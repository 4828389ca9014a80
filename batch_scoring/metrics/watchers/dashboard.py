"""The Grafana dashboard: how all pipelines are today, and how their days were over a month.

It is in the classic model, which every Grafana since version 10 reads. Most metrics are of the newest scored day, so
their lines are steps, one a night.
"""

from batch_scoring.metrics.catalogue import (
    DAEMON_HEARTBEAT,
    DAMAGED_DOCUMENTS,
    DAY_CHECK_PASSED,
    DAY_COST,
    DAY_CPU,
    DAY_DECISIONS,
    DAY_DRIFT,
    DAY_DURATION,
    DAY_GPU,
    DAY_ROWS,
    DAY_SCORE_MEAN,
    EXPORT_LAST_SUCCESS,
    EXPORTS_PENDING,
    FAILED_PARTITIONS,
    FAILED_RUNS,
    IN_PROGRESS_SINCE,
    INSTANCE_READABLE,
    MODEL_INFO,
    NEWEST_DAY,
    NEWEST_DAY_LIMIT,
    RECENT_PARTITIONS,
    STATE_READ_DURATION,
    STATE_READABLE,
)
from batch_scoring.metrics.watchers.alert_rules import LEAST_SCORED_SHARE, LONGEST_SECONDS, SECONDS_OF_SILENCE
from batch_scoring.metrics.watchers.grafana import DATASOURCE, WIDTH, Json, Panel, Row, panels
from batch_scoring.metrics.watchers.promql import JOB, age, scored_share, value

PIPELINES = 'pipeline=~"$pipeline"'
"""Matches the pipelines that the reader has chosen."""

_FAILED_CHECKS = (
    f"{value(DAY_CHECK_PASSED, PIPELINES)}\n"
    f"and min without (instance, pod) "
    f"(min_over_time({DAY_CHECK_PASSED.full_name}{{{PIPELINES}}}[$__range] @ end())) == 0"
)

NOW = Row(
    "Now",
    4,
    (
        Panel(
            "Until a day is missing",
            "Time left until the next day has to be scored; negative if it is late.",
            {"{{pipeline}}": f"{value(NEWEST_DAY_LIMIT, PIPELINES)} - ({age(NEWEST_DAY, PIPELINES)})"},
            unit="s",
            kind="stat",
            width=6,
            first_colour="red",
            thresholds=((0, "orange"), (7200, "green")),
        ),
        Panel(
            "Rows scored",
            "Share of the newest day's input rows that have a score.",
            {"{{pipeline}}": scored_share(PIPELINES)},
            unit="percentunit",
            kind="stat",
            width=6,
            first_colour="red",
            thresholds=((LEAST_SCORED_SHARE, "green"),),
        ),
        Panel(
            "Failed days",
            "Days whose run failed, and that no later run has scored.",
            {"{{pipeline}}": value(FAILED_PARTITIONS, PIPELINES)},
            unit="none",
            kind="stat",
            width=6,
            thresholds=((1, "red"),),
        ),
        Panel(
            "In progress for",
            "Age of the oldest day that is started and not scored.",
            {"{{pipeline}}": age(IN_PROGRESS_SINCE, PIPELINES)},
            unit="s",
            kind="stat",
            width=6,
            thresholds=((LONGEST_SECONDS, "red"),),
        ),
        Panel(
            "Failing checks",
            "Checks that failed on the newest scored day.",
            {"{{pipeline}}": f"sum without (asset, check) (1 - {value(DAY_CHECK_PASSED, PIPELINES)})"},
            unit="none",
            kind="stat",
            width=6,
            thresholds=((1, "orange"),),
        ),
        Panel(
            "Exports pending",
            "Recent days that an export still has to bring to its sink.",
            {"{{pipeline}}": f"sum without (export) ({value(EXPORTS_PENDING, PIPELINES)})"},
            unit="none",
            kind="stat",
            width=6,
            thresholds=((1, "orange"),),
        ),
        Panel(
            "Drift",
            "Largest distance from the reference as a share of its threshold.",
            {"{{pipeline}}": f"max without (side) ({value(DAY_DRIFT, PIPELINES)})"},
            unit="percentunit",
            kind="stat",
            width=6,
            thresholds=((1, "orange"),),
        ),
        Panel(
            "Active model",
            "The version that scores the next day.",
            {"{{pipeline}} {{version}}": value(MODEL_INFO, PIPELINES)},
            unit="none",
            kind="stat",
            width=6,
            names_only=True,
        ),
        Panel(
            "Firing alerts",
            "Alerts of these pipelines, and of the deployment.",
            {
                "{{alertname}} {{pipeline}}": (
                    'ALERTS{alertname=~"BatchScoring.*", alertstate="firing", pipeline=~"$pipeline|"}'
                )
            },
            unit="none",
            kind="state-timeline",
            width=WIDTH,
            first_colour="red",
            words=("quiet", "firing"),
        ),
    ),
)
SCORES = Row(
    "Rows and scores",
    8,
    (
        Panel(
            "Rows by outcome",
            "What became of the input rows of each night's newest day.",
            {"{{pipeline}} {{outcome}}": value(DAY_ROWS, PIPELINES)},
            unit="short",
            is_stacked=True,
        ),
        Panel(
            "Error rate",
            "Share of the input rows without a score. The line is where the alert fires.",
            {"{{pipeline}}": f"1 - {scored_share(PIPELINES)}"},
            unit="percentunit",
            thresholds=((round(1 - LEAST_SCORED_SHARE, 9), "red"),),
        ),
        Panel(
            "Mean score",
            "Mean of each score column.",
            {"{{pipeline}} {{column}}": value(DAY_SCORE_MEAN, PIPELINES)},
            unit="none",
        ),
        Panel(
            "Drift against its threshold",
            "Largest distance of features and predictions from the reference; from 100 % on they have drifted.",
            {"{{pipeline}} {{side}}": value(DAY_DRIFT, PIPELINES)},
            unit="percentunit",
            thresholds=((1, "red"),),
        ),
        Panel(
            "Decisions by action",
            "Rows of the newest decided day.",
            {"{{pipeline}} {{action}}": value(DAY_DECISIONS, PIPELINES)},
            unit="short",
            is_stacked=True,
        ),
        Panel(
            "Checks that failed",
            "Checks of each night's newest day, of those that failed within the time range; all others passed.",
            {"{{pipeline}} {{asset}} {{check}}": _FAILED_CHECKS},
            unit="none",
            kind="state-timeline",
            first_colour="red",
            thresholds=((1, "green"),),
            words=("failed", "passed"),
        ),
    ),
)
COST = Row(
    "Time and cost",
    8,
    (
        Panel(
            "Processing time by step",
            "Wall time of the newest scored day. The line is where a day in progress raises an alert.",
            {"{{pipeline}} {{step}}": value(DAY_DURATION, PIPELINES)},
            unit="s",
            thresholds=((LONGEST_SECONDS, "red"),),
        ),
        Panel(
            "CPU and GPU time by step",
            "Of the newest scored day, over all its processes.",
            {
                "{{pipeline}} {{step}}, CPU": value(DAY_CPU, PIPELINES),
                "{{pipeline}} {{step}}, GPU": value(DAY_GPU, PIPELINES),
            },
            unit="s",
        ),
        Panel(
            "Cost of a day",
            "Only of pipelines with prices in their spec.",
            {"{{pipeline}}, {{currency}}": value(DAY_COST, PIPELINES)},
            unit="none",
        ),
    ),
)
DELIVERY = Row(
    "Exports and failures",
    8,
    (
        Panel(
            "Exports pending",
            "Recent days that are not yet in the sink.",
            {"{{pipeline}} {{export}}": value(EXPORTS_PENDING, PIPELINES)},
            unit="none",
            width=6,
        ),
        Panel(
            "Time since the last export",
            "Grows for a day if all is well.",
            {"{{pipeline}} {{export}}": age(EXPORT_LAST_SUCCESS, PIPELINES)},
            unit="s",
            width=6,
        ),
        Panel(
            "Failed runs by class",
            "Within 24 hours; most of them are retried by themselves.",
            {"{{pipeline}} {{class}}": value(FAILED_RUNS, PIPELINES)},
            unit="none",
            width=6,
            is_stacked=True,
        ),
        Panel(
            "Recent days by state",
            "Days whose input is known: scored, in progress, or failed.",
            {"{{pipeline}} {{state}}": value(RECENT_PARTITIONS, PIPELINES)},
            unit="none",
            width=6,
            is_stacked=True,
        ),
    ),
)
EXPORTER = Row(
    "Exporter and daemon",
    6,
    (
        Panel(
            "Readable",
            "Whether the exporter answers Prometheus, and reads the state and the Dagster instance.",
            {
                "exporter {{instance}}": f'up{{job="{JOB}"}}',
                "state of {{pipeline}}": value(STATE_READABLE, PIPELINES),
                "Dagster instance of {{job}}": value(INSTANCE_READABLE),
            },
            unit="none",
            kind="state-timeline",
            width=6,
            first_colour="red",
            thresholds=((1, "green"),),
        ),
        Panel(
            "Time to read the state",
            "Of the last complete reading.",
            {"{{pipeline}}": value(STATE_READ_DURATION, PIPELINES)},
            unit="s",
            width=6,
        ),
        Panel(
            "Damaged documents",
            "Documents of recent days in the state that cannot be read.",
            {"{{pipeline}}": value(DAMAGED_DOCUMENTS, PIPELINES)},
            unit="none",
            width=6,
        ),
        Panel(
            "Time since the daemon's last heartbeat",
            "Only where the exporter has the Dagster instance. The line is where the alert fires.",
            {"{{daemon}}": age(DAEMON_HEARTBEAT)},
            unit="s",
            width=6,
            thresholds=((SECONDS_OF_SILENCE, "red"),),
        ),
    ),
)
ROWS = (NOW, SCORES, COST, DELIVERY, EXPORTER)


def dashboard() -> Json:
    """The dashboard, as Grafana imports it."""
    return {
        "uid": "batch-scoring",
        "title": "Batch scoring",
        "tags": ["batch-scoring"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,  # one cross-hair in all panels
        "refresh": "5m",
        "time": {"from": "now-30d", "to": "now"},
        "templating": {"list": _variables()},
        "panels": list(panels(ROWS)),
    }


def _variables() -> list[Json]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "pipeline",
            "label": "Pipeline",
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": f"label_values({STATE_READABLE.full_name}, pipeline)", "refId": "pipeline"},
            "refresh": 2,  # whenever the time range changes
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]
