"""Tests of expressions, asked of a real Prometheus."""

import pytest

from batch_scoring.metrics.catalogue import DAY_CHECK_PASSED, DAY_ROWS, METRICS, NEWEST_DAY
from batch_scoring.metrics.watchers.promql import age, failed_rows, scored_share, value
from batch_scoring_tests.monitoring_servers import Prometheus

CHURN = 'pipeline="churn"'


def test_a_metric_keeps_its_own_labels_and_loses_those_of_the_pod(prometheus: Prometheus) -> None:
    for metric in METRICS:
        found = prometheus.query(value(metric))
        assert found, metric.name
        assert all(series["metric"].keys() == {*metric.labels, "job"} for series in found), metric.name


def test_a_window_and_an_offset_bridge_what_is_lost(prometheus: Prometheus) -> None:
    assert value(NEWEST_DAY, CHURN, window="1h", offset="36h") == (
        "max without (instance, pod) "
        '(last_over_time(batch_scoring_newest_day_timestamp_seconds{pipeline="churn"}[1h] offset 36h))'
    )
    assert prometheus.query(value(DAY_ROWS, window="10m"))
    assert not prometheus.query(value(DAY_ROWS, window="10m", offset="1d"))


def test_an_age_is_in_seconds(prometheus: Prometheus) -> None:
    [series] = prometheus.query(age(NEWEST_DAY, CHURN))
    assert 0 <= float(series["value"][1]) < 10


@pytest.mark.parametrize(("expression", "expected"), [(failed_rows(CHURN), 1), (scored_share(CHURN), 20 / 21)])
def test_rows_are_counted_by_outcome(expression: str, expected: float, prometheus: Prometheus) -> None:
    """The page has 20 rows that are scored, and one that is not."""
    [series] = prometheus.query(expression)
    assert series["metric"] == {"pipeline": "churn", "job": "batch-scoring"}
    assert float(series["value"][1]) == pytest.approx(expected)


def test_matchers_select_series(prometheus: Prometheus) -> None:
    assert len(prometheus.query(value(DAY_CHECK_PASSED))) == 2
    assert len(prometheus.query(value(DAY_CHECK_PASSED, CHURN, 'check="a check"'))) == 1
