"""The sensors that ask for a pipeline's runs, as the instance knows them: which are on, which have stopped working."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorTick, TickStatus

from batch_scoring.pipeline import Pipeline

FAILED_TICKS = 10
"""In a row, after which a sensor is broken: five minutes of a store that does not answer."""


@dataclass(frozen=True)
class Broken:
    """A sensor whose latest ticks have all failed."""

    pipeline: Pipeline
    sensor: str
    since: datetime
    """UTC; at least so long."""
    error: str


def uploads_name(pipeline: Pipeline) -> str:
    """`<pipeline>_uploads`."""
    return f"{pipeline.name}_uploads"


def events_name(pipeline: Pipeline) -> str:
    """`<pipeline>_events`."""
    return f"{pipeline.name}_events"


def is_any_on(instance: dg.DagsterInstance, pipeline: Pipeline) -> bool:
    """Whether a sensor asks again for a day of the pipeline that is not settled."""
    if instance.schedule_storage is None:  # a passing instance: no daemon works for it
        return False
    states, spec = _states(instance), pipeline.spec
    doors = {uploads_name(pipeline): spec.uploads.default_status}
    if spec.events.queue:
        doors[events_name(pipeline)] = spec.events.default_status
    return any(
        states[name].status != InstigatorStatus.STOPPED if name in states else default == "running"
        for name, default in doors.items()
    )


def broken(instance: dg.DagsterInstance, pipelines: Sequence[Pipeline]) -> Iterator[Broken]:
    """The sensors that are on and whose latest ticks have all failed."""
    states = _states(instance)
    for pipeline in pipelines:
        for name in (uploads_name(pipeline), events_name(pipeline)):
            state = states.get(name)
            if state is None or state.status == InstigatorStatus.STOPPED:
                continue
            ticks = _ended_ticks(instance, state)
            if len(ticks) == FAILED_TICKS and all(tick.status == TickStatus.FAILURE for tick in ticks):
                since = datetime.fromtimestamp(ticks[-1].timestamp, UTC)
                yield Broken(pipeline, name, since, _words(ticks[0]))


def _states(instance: dg.DagsterInstance) -> dict[str, InstigatorState]:
    """By name; a sensor that was never looked at nor switched has none."""
    if instance.schedule_storage is None:
        return {}
    return {state.name: state for state in instance.all_instigator_state()}


def _ended_ticks(instance: dg.DagsterInstance, state: InstigatorState) -> Sequence[InstigatorTick]:
    """The latest, newest first."""
    ended = [TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE]
    return instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=FAILED_TICKS, statuses=ended)


def _words(tick: InstigatorTick) -> str:
    """The error of a tick: that of our own code, which Dagster wraps into its own."""
    error = tick.error
    while error and error.cause:
        error = error.cause
    return error.message.strip() if error else "no message"
