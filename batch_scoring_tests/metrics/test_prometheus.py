"""Tests of the text format, read by Prometheus' own programs."""

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from batch_scoring.metrics.catalogue import METRICS, Metric, Sample
from batch_scoring.metrics.prometheus import exposition


def one_of(metric: Metric, value: float = 1.0) -> Sample:
    return Sample(metric, tuple(f"a {label}" for label in metric.labels), value)


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus is not installed: no promtool")
def test_promtool_has_nothing_to_object_to_in_any_metric() -> None:
    text = exposition(one_of(metric) for metric in METRICS)
    assert text.count(b"# HELP") == len(METRICS)
    found = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (found.returncode, found.stderr.decode()) == (0, "")


def test_labels_with_quotes_line_breaks_and_backslashes_come_back_as_they_are() -> None:
    odd = 'a "b"\nc\\d ü'
    metric = next(metric for metric in METRICS if metric.labels == ("pipeline",))
    families = list(text_string_to_metric_families(exposition([Sample(metric, (odd,), 0.1)]).decode()))
    assert [(sample.labels, sample.value) for family in families for sample in family.samples] == [
        ({"pipeline": odd}, 0.1)
    ]


def test_a_metric_without_a_sample_is_left_out() -> None:
    assert exposition([]) == b""
