"""Tests of the gauges for CloudWatch, read back from moto's."""

from datetime import UTC, datetime, timedelta

import pytest

from batch_scoring.metrics import catalogue, cloudwatch
from batch_scoring.metrics.catalogue import Sample
from batch_scoring_tests.reliability.proxy import Fault
from batch_scoring_tests.reliability.store import Store

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)
BEGAN = datetime(2026, 11, 28, tzinfo=UTC).timestamp()


def samples(pipeline: str = "churn", readable: float = 1) -> list[Sample]:
    rows = {"scored": 950.0, "rejected": 30.0, "unscored": 20.0}
    seconds = {"validated_features": 20.0, "predictions": 40.5}
    return [
        Sample(catalogue.STATE_READABLE, (pipeline,), readable),
        Sample(catalogue.NEWEST_DAY, (pipeline,), BEGAN),
        *(Sample(catalogue.DAY_ROWS, (pipeline, outcome), count) for outcome, count in rows.items()),
        *(Sample(catalogue.DAY_DURATION, (pipeline, step), value) for step, value in seconds.items()),
    ]


def figures(found: list[Sample]) -> dict[tuple[str, str], tuple[float, str]]:
    return {
        (one["Dimensions"][0]["Value"], one["MetricName"]): (one["Value"], one["Unit"])
        for one in cloudwatch.data(found, AT)
    }


def test_five_gauges_say_how_a_pipeline_stands() -> None:
    assert figures(samples()) == {
        ("churn", "ProcessedRecords"): (950, "Count"),
        ("churn", "FailedRecords"): (50, "Count"),
        ("churn", "SuccessRate"): (95, "Percent"),
        ("churn", "DayAge"): (60 * 3600, "Seconds"),
        ("churn", "Duration"): (60.5, "Seconds"),
    }


def test_a_pipeline_whose_state_was_not_read_sends_nothing() -> None:
    assert {pipeline for pipeline, _ in figures([*samples("a"), *samples("b", readable=0)])} == {"a"}


def test_a_pipeline_without_a_scored_day_or_a_row_has_no_figures_of_them() -> None:
    assert figures([Sample(catalogue.STATE_READABLE, ("new",), 1)]) == {}
    no_rows = [
        Sample(catalogue.STATE_READABLE, ("empty",), 1),
        *(Sample(catalogue.DAY_ROWS, ("empty", outcome), 0) for outcome in catalogue.OUTCOMES),
    ]
    assert {name for _, name in figures(no_rows)} == {"ProcessedRecords", "FailedRecords"}


@pytest.mark.s3
def test_what_is_sent_is_there_and_a_datum_sent_twice_changes_no_maximum(store: Store) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    assert cloudwatch.send("Scoring", samples(), now) == 5
    cloudwatch.send("Scoring", samples(), now)
    client = store.client_of_moto("cloudwatch")
    found = client.get_metric_statistics(
        Namespace="Scoring",
        MetricName="ProcessedRecords",
        Dimensions=[{"Name": "Pipeline", "Value": "churn"}],
        StartTime=now - timedelta(minutes=5),
        EndTime=now + timedelta(minutes=5),
        Period=300,
        Statistics=["Maximum", "Minimum", "Sum"],
    )["Datapoints"]
    assert {(one["Maximum"], one["Minimum"]) for one in found} == {(950, 950)}
    assert sum(one["Sum"] for one in found) == 1900, "why no alarm is of a sum"


@pytest.mark.s3
def test_a_refusal_is_an_error_that_names_cloudwatch(store: Store) -> None:
    store.proxy.faults = [Fault("403")]
    with pytest.raises(PermissionError, match="CloudWatch, namespace Scoring: access denied"):
        cloudwatch.send("Scoring", samples(), AT)
