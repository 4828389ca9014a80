"""Days that are late: by its spec's deadlines a day must have landed, and a landed one must be scored.

A day is looked at from its deadline on, until it is known to have kept it or to have missed it; both are final.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import dagster as dg

from batch_scoring import landing
from batch_scoring.assets import asset_key
from batch_scoring.channels import Message
from batch_scoring.digests import link
from batch_scoring.outbox import stamp
from batch_scoring.pipeline import Pipeline
from batch_scoring.state import State

LOOK_BACK = timedelta(days=7)
"""How long ago a deadline may be."""
TIME_TO_SCORE = timedelta(hours=1)
"""That a file has which came late."""

Aim = Literal["landed", "scored"]
Verdict = Literal["kept", "missed", "open"]


@dataclass(frozen=True)
class Deadline:
    """When a pipeline's day must have landed, or be scored."""

    pipeline: Pipeline
    day: str
    aim: Aim
    at: datetime
    """In the time zone of the pipeline."""

    @property
    def name(self) -> str:
        """Names it in storage."""
        return f"{self.pipeline.name} {self.day} {self.aim}"

    @property
    def folder(self) -> str:
        """Where the day's files land."""
        return f"{self.pipeline.landing.uri}/{landing.day_folder(self.day)}"


def passed(pipelines: Iterable[Pipeline], now: datetime) -> Iterator[Deadline]:
    """The deadlines that passed lately, by pipeline and day."""
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


def judge(deadline: Deadline, now: datetime) -> Verdict:
    """Whether a deadline that has passed was kept.

    Raises:
        OSError: the store did not answer.
        StateError: the day's account is damaged.
    """
    files = landing.list_day(deadline.pipeline.landing, deadline.day)
    account = State(deadline.pipeline.output).account("predictions", deadline.day)
    if deadline.aim == "landed":
        return "kept" if files or account else "missed"  # a scored day's files may be archived
    if not files:
        return "kept" if account else "open"
    if account and account.fingerprint == landing.fingerprint(files):
        return "kept"
    return "open" if max(file.modified for file in files) + TIME_TO_SCORE > now else "missed"


def message(missed: Deadline) -> Message:
    """What to tell people of a deadline that was missed."""
    name, day, by = missed.pipeline.name, missed.day, stamp(missed.at)
    if missed.aim == "landed":
        title, text = "missing, no file has landed", f"missing: {name} {day}, expected in {missed.folder} by {by}"
    else:
        title = "landed, but not scored"
        text = f"landed, but not scored by {by}; run: batch-scoring backfill {name} {day} {day}"
    body = f"{text}\n{link(f'assets/{name}/raw_input?partition={day}')}"
    return Message(topic=name, title=f"{name} {day}: {title}", body=body, kind="failure")


def evaluation(missed: Deadline) -> dg.AssetCheckEvaluation:
    """The failed check of a day that has not landed, so that the UI shows it though nothing ever ran."""
    return dg.AssetCheckEvaluation(
        asset_key=asset_key(missed.pipeline, "raw_input"),
        check_name="input_is_present",
        passed=False,
        description=f"no file in {missed.folder}; expected by {stamp(missed.at)}",
        metadata={"files": 0, "rows": 0},
        partition=missed.day,
        blocking=True,
    )
