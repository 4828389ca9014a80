"""Status of a pipeline's sensors: which are running, which fail."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from batch_scoring.config.names import events_name, exports_sensor_name, uploads_name
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.dagster_internals import InstigatorState, InstigatorStatus, InstigatorTick, TickStatus

FAILED_FOR = 300.0
"""Seconds without a successful tick after which a sensor counts as broken."""
MOST_TICKS = 400
"""Ticks examined: more than five minutes of a sensor that ticks every second."""
_WELL = [TickStatus.SUCCESS, TickStatus.SKIPPED]


@dataclass(frozen=True)
class FailingSensor:
    """A sensor that has failed for a while."""

    pipeline: Pipeline
    sensor: str
    since: datetime
    """UTC; it has failed at least since then."""
    error: str

    @property
    def is_of_exports(self) -> bool:
        """Whether it starts exports; the others score days."""
        return self.sensor == exports_sensor_name(self.pipeline)


def says_broken(message: str) -> bool:
    """Whether an error is of a sensor `broken_name`, which fails only to be seen: its errors are reported elsewhere."""
    return bool(re.search(r"for sensor \w+_is_broken\b", message))


def is_any_on(instance: dg.DagsterInstance, pipeline: Pipeline) -> bool:
    """Whether a sensor is running that requests days of the pipeline until they are up to date."""
    known = states(instance)
    # an ephemeral instance has no schedule storage, and no daemon
    return instance.schedule_storage is not None and any(
        is_on(known.get(name), default) for name, default in sensors_of(pipeline).items()
    )


def broken(instance: dg.DagsterInstance, pipelines: Sequence[Pipeline]) -> Iterator[FailingSensor]:
    """The running sensors that have failed for a while."""
    known = states(instance)
    for pipeline in pipelines:
        for name, default in {**sensors_of(pipeline), **exports_sensor_of(pipeline)}.items():
            state = known.get(name)
            if state is None or not is_on(state, default):
                continue
            failed, well = _ticks(instance, state, [TickStatus.FAILURE]), _ticks(instance, state, _WELL)[:1]
            failed = [tick for tick in failed if not well or tick.timestamp > well[0].timestamp]
            if len(failed) > 1 and failed[0].timestamp - failed[-1].timestamp >= FAILED_FOR:
                yield FailingSensor(
                    pipeline, name, datetime.fromtimestamp(failed[-1].timestamp, UTC), _words(failed[0])
                )


def exports_itself(instance: dg.DagsterInstance, pipeline: Pipeline) -> bool:
    """Whether the sensor is running that exports days of the pipeline."""
    known = states(instance)
    return instance.schedule_storage is not None and any(
        is_on(known.get(name), default) for name, default in exports_sensor_of(pipeline).items()
    )


def exports_sensor_of(pipeline: Pipeline) -> dict[str, str]:
    """The sensor that starts exports, if the pipeline has any, with its default status from the spec."""
    exports = pipeline.spec.exports.values()
    status = "running" if any(export.default_status == "running" for export in exports) else "stopped"
    return {exports_sensor_name(pipeline): status} if exports else {}


def sensors_of(pipeline: Pipeline) -> dict[str, str]:
    """The pipeline's sensors that score days, with their default status from the spec."""
    spec = pipeline.spec
    sensors: dict[str, str] = {uploads_name(pipeline): spec.uploads.default_status}
    if spec.events.queue:
        sensors[events_name(pipeline)] = spec.events.default_status
    return sensors


def is_on(state: InstigatorState | None, default: str) -> bool:
    """Whether a sensor is running: as switched in the UI, else by the spec's current default."""
    if state is None or state.status == InstigatorStatus.DECLARED_IN_CODE:
        return default == "running"
    return state.status == InstigatorStatus.RUNNING


def states(instance: dg.DagsterInstance) -> dict[str, InstigatorState]:
    """States by sensor name; a sensor that was never evaluated or switched has none."""
    if instance.schedule_storage is None:
        return {}
    return {state.name: state for state in instance.all_instigator_state()}


def _ticks(
    instance: dg.DagsterInstance, state: InstigatorState, statuses: Sequence[TickStatus]
) -> Sequence[InstigatorTick]:
    """The latest, newest first."""
    return instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=MOST_TICKS, statuses=statuses)


def _words(tick: InstigatorTick) -> str:
    """Error message of a tick: that of our own code, which Dagster wraps."""
    error = tick.error
    if error and error.cause:
        error = error.cause
    return error.message.strip() if error else "no message"
