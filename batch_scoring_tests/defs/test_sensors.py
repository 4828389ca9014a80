"""What the sensors are, and what they hand to Dagster; what they decide is tested in operations."""

import dagster as dg
import pytest

from batch_scoring.config.loader import BrokenPipeline
from batch_scoring.defs.sensors import broken_sensor, uploads_sensor
from batch_scoring.errors import SpecError
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
