"""What the sensors are, and what they hand to Dagster; what they decide is tested in operations."""

from typing import BinaryIO

import dagster as dg
import pytest

from batch_scoring.config.loader import BrokenPipeline
from batch_scoring.defs.sensors import broken_sensor, uploads_sensor
from batch_scoring.errors import SpecError
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring_tests.exports import scored, tick, with_export
from batch_scoring_tests.tiny import TinyProject


def test_a_broken_pipeline_has_a_sensor_that_fails_with_its_errors(tiny: TinyProject) -> None:
    sensor = broken_sensor(BrokenPipeline("tiny", ("pipeline.yaml line 3: name: missing",), tiny.pipeline.output))
    assert sensor.name == "tiny_is_broken" and sensor.default_status == dg.DefaultSensorStatus.RUNNING
    with pytest.raises(SpecError) as raised:
        sensor(dg.build_sensor_context())
    assert raised.value.errors == ["pipeline.yaml line 3: name: missing"]


@pytest.mark.parametrize(("status", "expected"), [("running", "RUNNING"), ("stopped", "STOPPED")])
def test_the_spec_says_whether_and_how_often_a_sensor_runs(tiny: TinyProject, status: str, expected: str) -> None:
    tiny.spec["uploads"] = {"default_status": status, "interval_seconds": 7}
    tiny.write_spec()
    sensor = uploads_sensor(tiny.pipeline)
    assert (sensor.default_status.value, sensor.minimum_interval_seconds) == (expected, 7)
    assert sensor.targets[0].job_name == f"score_{tiny.name}"


def test_a_queue_of_the_spec_has_a_sensor_of_its_own(tiny: TinyProject) -> None:
    assert {sensor.name for sensor in tiny.definitions.sensors or []} == {"dead_runs", "alerts", f"{tiny.name}_uploads"}
    tiny.spec["events"] = {"queue": "https://sqs.example/1/uploads"}
    tiny.write_spec()
    assert f"{tiny.name}_events" in {sensor.name for sensor in tiny.definitions.sensors or []}


def test_a_tick_reads_once_for_all_exports_what_has_changed(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    fields: list[dict[str, object]] = [{"columns": ["id", "x"]}, {"recent_days": 1}, {"days": ["mon"]}, {}]
    for number, one in enumerate(fields):
        with_export(tiny, f"list_{number}", **one)
    scored(tiny, "2024-03-01", "2024-03-04")
    read: list[str] = []
    opened = LocalFolder.open

    def opening(folder: LocalFolder, path: str, token: str | None = None) -> BinaryIO:
        read.extend([path] if path.startswith("dt=") and path.endswith(".json") else [])
        return opened(folder, path, token)

    monkeypatch.setattr(LocalFolder, "open", opening)
    with dg.DagsterInstance.ephemeral() as instance:
        requests, _ = tick(tiny, instance)
        assert len(requests) == len(fields)
        assert len(read) == len(set(read)) == 4, "predictions and features of two days"
        read.clear()
        tick(tiny, instance)
        assert read == []
        tiny.state.put_published_day(tiny.published_day("predictions", "2024-03-04"))
        read.clear()
        tick(tiny, instance)
        assert read == ["dt=2024-03-04/predictions.json"]
