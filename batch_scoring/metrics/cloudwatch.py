"""Metrics for CloudWatch: five gauges of a pipeline, sent as they stand now.

CloudWatch may store a datum twice, so alarms are of the maximum or minimum, never of a sum. A pipeline whose state was
not read sends nothing, as if the exporter were gone: the alarm on that treats missing data as breaching.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from batch_scoring.metrics import catalogue
from batch_scoring.metrics.catalogue import Metric, Sample
from batch_scoring.storage import aws

EVERY_SECONDS = 300.0
MOST_PER_REQUEST = 1000
"""Data of a request, CloudWatch's limit."""

_ByLabels = Mapping[tuple[str, ...], float]


def data(samples: Iterable[Sample], at: datetime) -> list[dict[str, Any]]:
    """The data to send; `at`: their time."""
    by_pipeline: dict[str, dict[Metric, dict[tuple[str, ...], float]]] = defaultdict(lambda: defaultdict(dict))
    for sample in samples:
        if sample.metric.labels[:1] == ("pipeline",):
            by_pipeline[sample.labels[0]][sample.metric][sample.labels[1:]] = sample.value
    return [
        {
            "MetricName": name,
            "Dimensions": [{"Name": "Pipeline", "Value": pipeline}],
            "Timestamp": at,
            "Value": value,
            "Unit": unit,
        }
        for pipeline, found in by_pipeline.items()
        if found[catalogue.STATE_READABLE].get(())
        for name, unit, value in _figures(found, at)
    ]


def _figures(found: Mapping[Metric, _ByLabels], at: datetime) -> Iterable[tuple[str, str, float]]:
    """Name, unit and value of each gauge of a pipeline; none before its first scored day."""
    rows = {outcome: count for (outcome,), count in found.get(catalogue.DAY_ROWS, {}).items()}
    if rows:
        scored, total = rows.get("scored", 0.0), sum(rows.values())
        yield "ProcessedRecords", "Count", scored
        yield "FailedRecords", "Count", total - scored
        if total:
            yield "SuccessRate", "Percent", 100 * scored / total
    for began in found.get(catalogue.NEWEST_DAY, {}).values():
        yield "DayAge", "Seconds", at.timestamp() - began
    if durations := found.get(catalogue.DAY_DURATION):
        yield "Duration", "Seconds", sum(durations.values())


def send(namespace: str, samples: Iterable[Sample], at: datetime) -> int:
    """Send the gauges; return their number.

    Raises:
        OSError: CloudWatch did not accept them.
    """
    found = data(samples, at)
    with aws.as_os_errors(f"CloudWatch, namespace {namespace}"):
        for start in range(0, len(found), MOST_PER_REQUEST):
            part = found[start : start + MOST_PER_REQUEST]
            aws.client("cloudwatch").put_metric_data(Namespace=namespace, MetricData=part)
    return len(found)
