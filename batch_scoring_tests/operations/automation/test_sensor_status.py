"""What the sensors' state in the instance means: whether a failed run is told, and a sensor that goes on failing."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._utils.error import SerializableErrorInfo

from batch_scoring.config.loader import load_pipelines
from batch_scoring.config.names import exports_sensor_name
from batch_scoring.operations.alerting import collector, messages
from batch_scoring.operations.automation import sensor_status
from batch_scoring_tests.exports import with_export
from batch_scoring_tests.receivers import Told
from batch_scoring_tests.tiny import DAY, TinyProject

LOG = logging.getLogger("tick")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


@pytest.fixture
def told(instance: dg.DagsterInstance, tiny: TinyProject, caplog: pytest.LogCaptureFixture) -> Told:
    """One tick of the alerts; the titles of its messages."""

    def look() -> list[str]:
        caplog.clear()
        collector.tick(instance, [tiny.pipeline], LOG)
        warned = [r.getMessage() for r in caplog.records if (r.name, r.levelname) == ("tick", "WARNING")]
        return [message.replace(tiny.name, "tiny") for message in warned]

    return look


class Sensor:
    """A sensor as the daemon leaves it in the instance."""

    def __init__(self, instance: dg.DagsterInstance, name: str) -> None:
        place = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__")
        origin = RemoteInstigatorOrigin(place, name)
        self._instance, self._name = instance, name
        self.state = InstigatorState(
            origin, InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE, SensorInstigatorData()
        )
        instance.add_instigator_state(self.state)

    def switch(self, status: InstigatorStatus) -> None:
        self.state = self.state.with_status(status)
        self._instance.update_instigator_state(self.state)

    def ticks(self, count: int, status: TickStatus = TickStatus.FAILURE, *, ago: float) -> None:
        error = SerializableErrorInfo(
            "SensorExecutionError: of Dagster\n",
            [],
            "x",
            SerializableErrorInfo("StoreError: s3://bucket does not answer\n", [], "y"),
        )
        for _ in range(count):
            self._instance.create_tick(
                TickData(
                    self.state.instigator_origin_id,
                    self._name,
                    InstigatorType.SENSOR,
                    status,
                    time.time() - ago,
                    error=error if status == TickStatus.FAILURE else None,
                    selector_id=self.state.selector_id,
                )
            )


# which are on


def test_a_door_is_on_as_the_spec_says_until_somebody_switches_it(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    assert sensor_status.is_any_on(instance, tiny.pipeline)
    sensor = Sensor(instance, f"{tiny.name}_uploads")
    assert sensor_status.is_any_on(instance, tiny.pipeline)
    sensor.switch(InstigatorStatus.STOPPED)
    assert not sensor_status.is_any_on(instance, tiny.pipeline)
    tiny.spec["events"] = {"queue": "https://sqs/q"}
    tiny.write_spec()
    assert sensor_status.is_any_on(instance, tiny.pipeline)
    tiny.spec["events"]["default_status"] = "stopped"
    tiny.write_spec()
    assert not sensor_status.is_any_on(instance, tiny.pipeline)
    sensor.switch(InstigatorStatus.RUNNING)
    assert sensor_status.is_any_on(instance, tiny.pipeline)


def test_no_door_is_on_where_no_daemon_works(tiny: TinyProject) -> None:
    with dg.DagsterInstance.ephemeral() as passing:
        assert not sensor_status.is_any_on(passing, tiny.pipeline)
        assert list(sensor_status.broken(passing, [tiny.pipeline])) == []


def test_the_embedded_pipelines_watch_their_landing_folder_and_no_queue() -> None:
    for pipeline in load_pipelines():
        assert (pipeline.spec.uploads.default_status, pipeline.spec.events.queue) == ("running", "")


# failed runs


def fail(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    """A run that fails of something that may pass."""
    tables = Path(tiny.pipeline.output.uri, "tables")
    if not tables.exists():
        tiny.land(DAY, tiny.rows(64), age=300)
        tables.write_text("a file where the folder of the tables should be")
    assert not tiny.run(instance=instance, raise_on_error=False).success


def test_of_a_day_that_a_sensor_tries_again_only_the_last_failure_is_told(
    tiny: TinyProject, instance: dg.DagsterInstance, told: Told
) -> None:
    for _ in range(2):
        fail(tiny, instance)
        assert told() == []
    fail(tiny, instance)
    (message,) = told()
    assert message.startswith(f"tiny {DAY}: failed at validated_features, keeps failing: 3 failed runs in a row")
    assert told() == []


def test_without_a_sensor_every_failure_is_told(tiny: TinyProject, instance: dg.DagsterInstance, told: Told) -> None:
    Sensor(instance, f"{tiny.name}_uploads").switch(InstigatorStatus.STOPPED)
    for _ in range(2):
        fail(tiny, instance)
        assert len(told()) == 1


def test_a_refused_day_is_told_at_once_and_says_that_nobody_tries_it_again(
    tiny: TinyProject, instance: dg.DagsterInstance, told: Told
) -> None:
    tiny.land(DAY, b"no parquet")
    job = tiny.definitions.resolve_job_def(f"score_{tiny.name}")
    job.execute_in_process(
        instance=instance, partition_key=DAY, tags={"batch_scoring/attempt": "1"}, raise_on_error=False
    )
    (message,) = told()
    assert message.startswith(f"tiny {DAY}: failed at raw_input")
    assert (
        f"not tried again until other files or other code arrive; by hand: batch-scoring backfill tiny {DAY} {DAY}"
        in message
    )


@pytest.mark.parametrize("is_on", [True, False])
def test_a_superseded_run_is_told_only_where_nobody_asks_again(
    tiny: TinyProject, instance: dg.DagsterInstance, told: Told, is_on: bool
) -> None:
    if not is_on:
        Sensor(instance, f"{tiny.name}_uploads").switch(InstigatorStatus.STOPPED)
    tiny.land(DAY, tiny.rows(64))
    # the files change when the run has read them, and has not published
    places = {"landing": tiny.pipeline.landing.uri, "output": tiny.pipeline.output.uri}
    tiny.write_code(network=_UPLOADS_WHILE_IT_SCORES.format(day=DAY, **places))
    result = tiny.run(instance=instance, raise_on_error=False)
    assert not result.success
    messages = told()
    assert len(messages) == (not is_on)
    assert all("superseded" in message for message in messages)


_UPLOADS_WHILE_IT_SCORES = """
import pathlib, torch

class Net(torch.nn.Module):
    def __init__(self, numeric, words, outputs):
        super().__init__()
        self.word = torch.nn.Embedding(words + 1, 4)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(numeric + 4, 16), torch.nn.ReLU(), torch.nn.Linear(16, outputs)
        )

    def forward(self, numeric, categorical):
        if pathlib.Path("{output}/state/dt={day}/input.json").exists():  # not when the model is tried
            pathlib.Path("{landing}/dt={day}/late.parquet").touch()
        result = self.layers(torch.cat([numeric.nan_to_num(0.0), self.word(categorical[:, 0])], dim=1))
        return torch.where(numeric[:, :1] == 555, torch.nan, result)
"""


def test_a_failed_run_of_a_day_that_is_settled_is_told_since_no_sensor_asks_for_it(
    tiny: TinyProject, instance: dg.DagsterInstance, told: Told
) -> None:
    tiny.land(DAY, tiny.rows(64), age=300)
    tiny.run(instance=instance)
    tiny.deliver("v2", seed=2)
    predictions = Path(tiny.pipeline.output.uri, "tables", "predictions", f"dt={DAY}")
    kept = predictions.rename(predictions.with_name("kept"))
    predictions.write_text("no folder")  # the run cannot write its shards
    assert not tiny.run(instance=instance, raise_on_error=False).success
    predictions.unlink()
    kept.rename(predictions)
    (message,) = told()
    assert message.startswith(f"tiny {DAY}: failed at predictions")


def test_a_failure_that_a_later_try_has_put_right_before_anybody_looked_is_not_told(
    tiny: TinyProject, instance: dg.DagsterInstance, told: Told
) -> None:
    tiny.land(DAY, tiny.rows(64), age=300)
    tiny.run(instance=instance)
    in_force = Path(tiny.pipeline.output.uri, "state", "model.json")
    good = in_force.read_bytes()
    in_force.write_bytes(good[:20])
    tiny.land(DAY, tiny.rows(70), age=200)
    assert not tiny.run(instance=instance, raise_on_error=False).success
    in_force.write_bytes(good)
    assert tiny.run(instance=instance).success
    assert told() == []


# sensors that fail


def test_a_sensor_that_goes_on_failing_is_told_once_and_again_after_it_has_worked(
    tiny: TinyProject, instance: dg.DagsterInstance, told: Told
) -> None:
    sensor = Sensor(instance, f"{tiny.name}_uploads")
    sensor.ticks(1, TickStatus.SKIPPED, ago=600)
    sensor.ticks(5, ago=290)
    assert told() == []
    sensor.ticks(1, ago=-20)
    (message,) = told()
    title, error, advice, _ = message.splitlines()
    assert title.startswith("tiny: the sensor tiny_uploads has failed since 20")
    assert error == "StoreError: s3://bucket does not answer"
    assert advice.startswith("files that land are not scored until it works again")
    sensor.ticks(3, ago=-30)
    assert told() == []
    sensor.ticks(1, TickStatus.SKIPPED, ago=-40)
    assert told() == []
    sensor.ticks(1, ago=-50), sensor.ticks(1, ago=-50 - sensor_status.FAILED_FOR)
    assert len(told()) == 1


def test_a_stopped_sensor_is_not_broken(tiny: TinyProject, instance: dg.DagsterInstance, told: Told) -> None:
    sensor = Sensor(instance, f"{tiny.name}_uploads")
    sensor.ticks(1, ago=1000), sensor.ticks(1, ago=0)
    sensor.switch(InstigatorStatus.STOPPED)
    assert told() == []


def test_a_sensor_that_the_spec_has_stopped_since_is_off(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    Sensor(instance, f"{tiny.name}_uploads")  # noted when the spec said running
    tiny.spec["uploads"] = {"default_status": "stopped"}
    tiny.write_spec()
    assert not sensor_status.is_any_on(instance, tiny.pipeline)


def test_the_sensor_of_exports_starts_no_day_and_is_watched(tiny: TinyProject, tmp_path: Path) -> None:
    with_export(tiny)
    name = exports_sensor_name(tiny.pipeline)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert name not in sensor_status.sensors_of(tiny.pipeline)
        assert sensor_status.exports_itself(instance, tiny.pipeline)
        sensor = Sensor(instance, name)
        sensor.ticks(3, ago=400)
        sensor.ticks(1, ago=1)
        (failing,) = sensor_status.broken(instance, [tiny.pipeline])
        assert (
            failing.is_of_exports and "days are not exported until it works again" in messages.of_sensor(failing).body
        )
        sensor.switch(InstigatorStatus.STOPPED)
        assert not sensor_status.exports_itself(instance, tiny.pipeline)
        assert sensor_status.is_any_on(instance, tiny.pipeline), "days are scored all the same"
