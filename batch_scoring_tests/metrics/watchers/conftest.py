"""A Prometheus that knows every metric of two pipelines, and an alert of one of them."""

import shutil
import time
from collections.abc import Iterator

import pytest

from batch_scoring.metrics.catalogue import DAY_CHECK_PASSED, METRICS, Metric, Sample
from batch_scoring.metrics.watchers.deployment import FOLDER
from batch_scoring_tests.monitoring_servers import (
    Prometheus,
    prometheus_settings,
    running_prometheus,
    sample_page,
    until,
)

PIPELINES = ("churn", "fraud")


def every_metric() -> list[Sample]:
    """A sample of each metric, of two pipelines; times are now."""
    return [sample for metric in METRICS for sample in _samples(metric)]


def _samples(metric: Metric) -> Iterator[Sample]:
    value = time.time() if "timestamp" in metric.name else float(metric is not DAY_CHECK_PASSED)
    for pipeline in PIPELINES if "pipeline" in metric.labels else PIPELINES[:1]:
        labels = (pipeline if label == "pipeline" else f"a {label}" for label in metric.labels)
        yield Sample(metric, tuple(labels), value)
    if "outcome" in metric.labels:
        yield Sample(metric, (PIPELINES[0], "scored"), 20)
        yield Sample(metric, (PIPELINES[1], "scored"), 20)


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with the rules, after a check of each pipeline has failed."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus on this machine")
    folder = tmp_path_factory.mktemp("prometheus")
    with sample_page() as page:
        page.samples = every_metric
        settings = prometheus_settings(FOLDER, FOLDER / "prometheus.yml", page.port)
        with running_prometheus(folder, settings) as server:
            fires = 'ALERTS{alertname="BatchScoringCheckFailed", alertstate="firing"}'
            until(lambda: len(server.query(fires)) == len(PIPELINES), 30, "the failed checks raise alerts")
            yield server
