"""All samples of a deployment: every pipeline's state, and the heartbeats of the daemon where its instance is known.

Storage is the only source of the pipelines' samples, so they also show runs that died and a daemon that is gone. All
sources are read side by side, and an answer is due in time whatever hangs: what was read last then stands, and
`state_readable` says that it is old.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from batch_scoring.config.loader import Survey
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.metrics import catalogue, day_samples
from batch_scoring.metrics.background_read import BackgroundRead, Reading
from batch_scoring.metrics.catalogue import Sample

ANSWER_SECONDS = 8.0
"""Time within which a scrape is answered; Prometheus gives up after 10 seconds by default."""

Heartbeats = Callable[[], Mapping[str, float]]
"""When each part of the daemon was last alive, in seconds since 1970."""


class Deployment:
    """What samples are collected from."""

    def __init__(self, survey: Survey, heartbeats: Heartbeats | None = None) -> None:
        """`heartbeats`: asks the Dagster instance; None where it is not known."""
        self._survey = survey
        self._states = {
            pipeline.name: BackgroundRead(f"state of {pipeline.name}", functools.partial(_read, pipeline))
            for pipeline in survey.valid
        }
        self._heartbeats = BackgroundRead("heartbeats", heartbeats) if heartbeats else None
        self.errors: dict[str, str] = {}
        """Why a source was not read the last time, by its name."""

    def samples(self, seconds: float = ANSWER_SECONDS) -> list[Sample]:
        """Read everything anew; return all samples within about that many seconds."""
        until = time.monotonic() + seconds
        errors: dict[str, str] = {}
        underway = {name: read.begin() for name, read in self._states.items()}
        found = [*self._of_instance(until, errors), *self._of_broken()]
        for name, read in self._states.items():
            reading = read.latest(until, underway[name])
            if reading.error:
                errors[name] = reading.error
            found += _of_state(name, reading)
        self.errors = errors
        return found

    def _of_broken(self) -> Iterator[Sample]:
        for pipeline in self._survey.valid:
            yield Sample(catalogue.PIPELINE_BROKEN, (pipeline.name,), 0)
        for broken in self._survey.broken:
            yield Sample(catalogue.PIPELINE_BROKEN, (broken.name,), 1)

    def _of_instance(self, until: float, errors: dict[str, str]) -> Iterator[Sample]:
        if self._heartbeats is None:
            return
        beats = self._heartbeats.latest(until)
        if beats.error:
            errors["Dagster instance"] = beats.error
        yield Sample(catalogue.INSTANCE_READABLE, (), beats.is_fresh)
        for daemon, at in (beats.content or {}).items():
            yield Sample(catalogue.DAEMON_HEARTBEAT, (daemon,), at)


def _read(pipeline: Pipeline) -> Sequence[Sample]:
    return day_samples.of_pipeline(pipeline, datetime.now(UTC))


def _of_state(name: str, reading: Reading[Sequence[Sample]]) -> Iterator[Sample]:
    yield Sample(catalogue.STATE_READABLE, (name,), reading.is_fresh)
    if reading.content is not None:
        yield Sample(catalogue.STATE_READ_TIMESTAMP, (name,), reading.at)
        yield Sample(catalogue.STATE_READ_DURATION, (name,), reading.seconds)
        yield from reading.content
