"""Metrics in the text format that Prometheus reads, written by its own client library."""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from batch_scoring.metrics.catalogue import METRICS, Sample


class _Samples(Collector):
    """What the library asks for the metrics of a scrape."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for metric in METRICS:
            family = GaugeMetricFamily(metric.full_name, metric.help, labels=metric.labels)
            for sample in self._samples:
                if sample.metric is metric:
                    family.add_metric(sample.labels, sample.value)
            if family.samples:
                yield family


def exposition(samples: Iterable[Sample]) -> bytes:
    """The metrics as text; those without a sample are left out."""
    return generate_latest(_Samples([*samples]))
