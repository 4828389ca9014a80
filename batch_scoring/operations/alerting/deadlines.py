"""Deadlines of days: when a day must have landed completely, and when it must be scored.

From its deadline on a day is checked until the deadline is known to be kept or missed; both are final. A day is
complete by the same settings as for the sensors: marker, manifest, quiet time.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import dagster as dg

from batch_scoring.config.names import asset_path
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.ingest import completeness, landing_files
from batch_scoring.operations.alerting.channels import Message
from batch_scoring.operations.alerting.messages import link
from batch_scoring.operations.alerting.outbox import stamp
from batch_scoring.storage.folders.folder import FileVersion
from batch_scoring.storage.state import PublishedDay, State

LOOK_BACK = timedelta(days=7)
"""Age of the oldest deadline that is checked."""
TIME_TO_SCORE = timedelta(hours=1)
"""Extra time for a file that arrived late."""
TIME_TO_COME = timedelta(hours=1)
"""Extra time after the deadline for files that are still arriving."""

Aim = Literal["landed", "scored"]
DeadlineStatus = Literal["kept", "missed", "open"]


@dataclass(frozen=True)
class Deadline:
    """Time by which a pipeline's day must have landed, or be scored."""

    pipeline: Pipeline
    day: str
    aim: Aim
    at: datetime
    """In the time zone of the pipeline."""

    @property
    def name(self) -> str:
        """Its name in storage."""
        return f"{self.pipeline.name} {self.day} {self.aim}"

    @property
    def folder(self) -> str:
        """Address of the day's landing folder."""
        return f"{self.pipeline.landing.uri}/{landing_files.day_folder(self.day)}"


def passed(pipelines: Iterable[Pipeline], now: datetime) -> Iterator[Deadline]:
    """The deadlines that passed recently, by pipeline and day."""
    for pipeline in pipelines:
        by_aim: dict[Aim, float | None] = {
            "landed": pipeline.spec.input.deadline_hours,
            "scored": pipeline.spec.alerts.scored_hours,
        }
        for aim, hours in by_aim.items():
            if hours is not None:
                yield from _passed(pipeline, aim, hours, now)


def _passed(pipeline: Pipeline, aim: Aim, hours: float, now: datetime) -> Iterator[Deadline]:
    zone = ZoneInfo(pipeline.spec.partitions.timezone)
    newest = now.astimezone(zone).date() - timedelta(days=hours // 24)
    for back in range(LOOK_BACK.days + 2, -1, -1):
        day = newest - timedelta(days=back)
        at = datetime.combine(day, time(), zone) + timedelta(hours=hours)  # within one zone: by the wall clock
        if day >= pipeline.spec.partitions.start and now - LOOK_BACK < at <= now:
            yield Deadline(pipeline, day.isoformat(), aim, at)


@dataclass(frozen=True)
class Result:
    """Whether a deadline that has passed was kept."""

    status: DeadlineStatus
    files: int
    """Data files of the day."""
    lacks: str = ""
    """Why the day is incomplete; empty if it is complete or has no file at all."""


def check(deadline: Deadline, now: datetime) -> Result:
    """Check whether a passed deadline was kept.

    Raises:
        OSError: the store did not answer.
        StateError: the record of the published day is damaged.
    """
    pipeline, day = deadline.pipeline, deadline.day
    everything = pipeline.landing.look(landing_files.day_folder(day))
    files = landing_files.data_files(everything)
    published_day = State(pipeline.output).published_day("predictions", day)
    lacks = _lacks(pipeline, day, everything, files) if files else ""
    if deadline.aim == "scored":
        return Result(_is_scored(published_day, files, now), len(files), lacks)
    if published_day:
        return Result("kept", len(files))  # its files may be archived
    if files and not lacks and (lacks := _still_arriving(pipeline, files, now)) and now < deadline.at + TIME_TO_COME:
        return Result("open", len(files), lacks)
    return Result("kept" if files and not lacks else "missed", len(files), lacks)


def _lacks(pipeline: Pipeline, day: str, everything: Sequence[FileVersion], files: Sequence[FileVersion]) -> str:
    """Why a day with files is incomplete, apart from the quiet time."""
    if troubled := [file for file in files if file.trouble]:
        return landing_files.in_words(pipeline.landing, troubled)
    if missing := completeness.waits_for(pipeline.spec.input.complete, pipeline.landing, day, everything):
        return missing
    empty = [f"{pipeline.landing.uri}/{file.path}" for file in files if not file.size]
    more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
    return f"{empty[0]}{more}: 0 bytes; upload it again" if empty else ""


def _still_arriving(pipeline: Pipeline, files: Sequence[FileVersion], now: datetime) -> str:
    """Why the day is still arriving; empty after the quiet time, or if the newest file's clock is ahead."""
    newest, quiet = max(files, key=lambda file: file.modified), pipeline.spec.input.complete.quiet_minutes
    if not now - timedelta(minutes=quiet) < newest.modified <= now:
        return ""
    return f"its files are still arriving, the last was {newest.path} at {stamp(newest.modified)}"


def _is_scored(published_day: PublishedDay | None, files: Sequence[FileVersion], now: datetime) -> DeadlineStatus:
    if not files:
        return "kept" if published_day else "open"
    if published_day and landing_files.is_of(published_day.fingerprint, files):
        return "kept"
    return "open" if max(file.modified for file in files) + TIME_TO_SCORE > now else "missed"


def message(missed: Deadline, result: Result) -> Message:
    """Alert for a missed deadline."""
    name, day, by = missed.pipeline.name, missed.day, stamp(missed.at)
    if missed.aim == "landed" and not result.files:
        title, text = "missing, no file has landed", f"missing: {name} {day}, expected in {missed.folder} by {by}"
    elif missed.aim == "landed":
        title = "incomplete, not all of it has landed"
        text = f"incomplete: {name} {day}, expected in {missed.folder} by {by}, {_count(result)}: {result.lacks}"
    elif result.lacks:
        title = "incomplete, and not scored"
        text = f"not scored by {by}, since the day is not complete, {_count(result)}: {result.lacks}"
    else:
        title = "landed, but not scored"
        text = f"landed, but not scored by {by}; run: batch-scoring backfill {name} {day} {day}"
    body = f"{text}\n{link(f'assets/{name}/raw_input?partition={day}')}"
    return Message(topic=name, title=f"{name} {day}: {title}", body=body, kind="failure")


def evaluation(missed: Deadline, result: Result) -> dg.AssetCheckEvaluation:
    """Failed check of a day that has not landed, shown in the UI although nothing has run."""
    found = f"{_count(result)} in {missed.folder}" + (f": {result.lacks}" if result.lacks else "")
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(asset_path(missed.pipeline, "raw_input")),
        check_name="input_is_complete" if result.files else "input_is_present",
        passed=False,
        description=f"{found}; expected by {stamp(missed.at)}",
        metadata={"files": result.files, "rows": 0},
        partition=missed.day,
        blocking=True,
    )


def _count(result: Result) -> str:
    return {0: "no file", 1: "1 file"}.get(result.files, f"{result.files} files")
