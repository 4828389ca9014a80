"""Tests of the catalogue of metrics."""

import re

from batch_scoring.metrics import catalogue
from batch_scoring.metrics.catalogue import METRICS, Metric

OTHER_UNITS = re.compile(r"_(minutes|hours|days|milliseconds|ms|percent|kilobytes|mb|gb)(_|$)")


def test_every_metric_of_the_module_is_listed_once() -> None:
    defined = [value for value in vars(catalogue).values() if isinstance(value, Metric)]
    assert sorted(defined, key=lambda metric: metric.name) == sorted(METRICS, key=lambda metric: metric.name)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_names_are_in_base_units_and_no_label_is_a_day_or_a_run() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", metric.name)
        assert not OTHER_UNITS.search(metric.name), metric.name
        assert not {"day", "dt", "run", "run_id", "partition", "le", "quantile", "job", "instance"} & {*metric.labels}
        assert metric.help.endswith(".")
        assert metric.full_name == f"batch_scoring_{metric.name}"
