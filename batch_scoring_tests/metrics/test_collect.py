"""Tests of the samples of a deployment whose sources may hang, fail or be broken."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from batch_scoring.config.loader import BrokenPipeline, Survey
from batch_scoring.metrics import catalogue, collect
from batch_scoring.metrics.catalogue import Metric, Sample
from batch_scoring.metrics.collect import Deployment
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.reliability.proxy import Fault
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import DAY, TinyProject


def of(samples: list[Sample], metric: Metric) -> dict[tuple[str, ...], float]:
    return {sample.labels: sample.value for sample in samples if sample.metric is metric}


def test_broken_pipelines_are_told_beside_those_that_are_read(tiny: TinyProject, tmp_path: Path) -> None:
    broken = BrokenPipeline("torn", ("pipeline.yaml: torn",), open_folder(str(tmp_path / "torn")))
    samples = Deployment(Survey((tiny.pipeline,), (broken,))).samples()
    assert of(samples, catalogue.PIPELINE_BROKEN) == {(tiny.name,): 0, ("torn",): 1}
    assert of(samples, catalogue.STATE_READABLE) == {(tiny.name,): 1}
    assert of(samples, catalogue.INSTANCE_READABLE) == {}
    series = [(sample.metric, sample.labels) for sample in samples]
    assert len(series) == len(set(series))


@pytest.mark.s3
def test_a_store_that_hangs_is_told_within_the_scrape_with_what_was_known_and_other_pipelines_go_on(
    store: Store, tmp_path: Path
) -> None:
    far = TinyProject(tmp_path / "far", data_root=f"s3://{store.new_bucket()}/data")
    near = TinyProject(tmp_path / "near")
    far.land(DAY, far.rows(4))
    far.run(steps=["raw_input"])
    deployment = Deployment(Survey((far.pipeline, near.pipeline), ()))
    before = deployment.samples(30)
    assert of(before, catalogue.STATE_READABLE) == {(far.name,): 1, (near.name,): 1}
    since = of(before, catalogue.IN_PROGRESS_SINCE)
    assert since.keys() == {(far.name,)}
    store.proxy.faults = [Fault("delay", seconds=3.0)]
    began = time.monotonic()
    hanging = deployment.samples(1.0)
    assert time.monotonic() - began < 2.5
    assert of(hanging, catalogue.STATE_READABLE) == {(far.name,): 0, (near.name,): 1}
    assert of(hanging, catalogue.IN_PROGRESS_SINCE) == since
    assert deployment.errors == {far.name: "it has not answered yet"}
    store.proxy.faults = []
    until = time.monotonic() + 60
    while not of(deployment.samples(1.0), catalogue.STATE_READABLE)[far.name,]:
        assert time.monotonic() < until, "the store answers again, and nobody notices"
    assert deployment.errors == {}


@pytest.mark.s3
def test_a_store_that_refuses_is_named_with_its_answer(store: Store, tmp_path: Path) -> None:
    far = TinyProject(tmp_path, data_root=f"s3://{store.new_bucket()}/data")
    store.proxy.faults = [Fault("403")]
    deployment = Deployment(Survey((far.pipeline,), ()))
    assert of(deployment.samples(30), catalogue.STATE_READABLE) == {(far.name,): 0}
    assert "PermissionError" in deployment.errors[far.name] and "access denied" in deployment.errors[far.name]


def test_heartbeats_are_told_and_an_instance_that_hangs_holds_nobody_up(tiny: TinyProject) -> None:
    go_on, beats = threading.Event(), {"SENSOR": 12.5}

    def read() -> Mapping[str, float]:
        assert go_on.wait(60)
        return beats

    go_on.set()
    deployment = Deployment(Survey((tiny.pipeline,), ()), read)
    samples = deployment.samples()
    assert of(samples, catalogue.INSTANCE_READABLE) == {(): 1}
    assert of(samples, catalogue.DAEMON_HEARTBEAT) == {("SENSOR",): 12.5}
    go_on.clear()
    samples = deployment.samples(0.3)
    assert of(samples, catalogue.INSTANCE_READABLE) == {(): 0}
    assert of(samples, catalogue.DAEMON_HEARTBEAT) == {("SENSOR",): 12.5}, "an old heartbeat is one that ages"
    assert of(samples, catalogue.STATE_READABLE) == {(tiny.name,): 1}
    assert deployment.errors == {"Dagster instance": "it has not answered yet"}
    go_on.set()


def test_the_answer_is_due_before_prometheus_gives_up() -> None:
    assert collect.ANSWER_SECONDS < 10
