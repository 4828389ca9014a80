"""Which days of an export are behind: their receipt is not of what is published, or not of the place that is named now.

From storage alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from batch_scoring.config.delivery_spec import AnyExport
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.delivery.day_rows import why_apart
from batch_scoring.delivery.exports import published
from batch_scoring.delivery.exports.expiry import whys_gone
from batch_scoring.delivery.exports.selection import reads_features
from batch_scoring.storage.shards import digest
from batch_scoring.storage.state import ExportReceipt, PublishedDay
from batch_scoring.storage.state_look import StateLook

LOOK_BACK = 100
"""Newest published days that are examined for exports that are no longer of what is published."""


@dataclass(frozen=True)
class PendingDay:
    """A day that an export has to bring to its sink."""

    export: str
    day: str
    version: str
    """Digest of what is published and of the export's settings: with another one, a refusal counts no longer."""
    why: str
    waits_for: str = ""
    """Why it cannot be exported now; empty if it can."""
    is_gone: bool = False
    """Whether it never can be, as retention has removed its rows."""


def recent(pipeline: Pipeline, name: str, look: StateLook | None = None) -> list[PendingDay]:
    """The days behind among the newest published ones, the oldest first: `recent_days` of them.

    Args:
        pipeline: whose export.
        name: of the export.
        look: what was already read for other exports; None to read everything anew.

    Raises:
        OSError: the store did not answer.
    """
    export, look = pipeline.spec.exports[name], look or StateLook(pipeline.output)
    found = look.newest_published_days(export.of, export.recent_days, lambda day: published.is_day_of(export, day))
    return _behind(pipeline, name, found[::-1], look)


def among(pipeline: Pipeline, name: str, days: Sequence[str]) -> list[PendingDay]:
    """The days behind among some.

    Raises:
        OSError: the store did not answer.
    """
    export = pipeline.spec.exports[name]
    look, wanted = StateLook(pipeline.output), [day for day in days if published.is_day_of(export, day)]
    return _behind(pipeline, name, look.published_days_of(export.of, wanted), look)


def outdated(pipeline: Pipeline, name: str) -> set[str]:
    """The exported days, among the newest published ones, that were corrected since.

    Raises:
        OSError: the store did not answer.
    """
    state, export = StateLook(pipeline.output), pipeline.spec.exports[name]
    days = state.newest_published_days(export.of, LOOK_BACK, lambda day: True)
    receipts = published.receipts_by_day(state, name, [day.day for day in days])
    return {day.day for day in days if day.day in receipts and not published.is_of(receipts[day.day], day)}


def _behind(pipeline: Pipeline, name: str, days: Sequence[PublishedDay], look: StateLook) -> list[PendingDay]:
    receipts = published.receipts_by_day(look, name, [day.day for day in days])
    whys = {day.day: _why(pipeline.spec.exports[name], day, receipts.get(day.day)) for day in days}
    behind = [day for day in days if whys[day.day]]
    gone = whys_gone(pipeline, [*behind, *_features(pipeline, name, behind, look)])
    return [_pending(pipeline, name, day, whys[day.day], look, gone.get(day.day, "")) for day in behind]


def _why(export: AnyExport, day: PublishedDay, receipt: ExportReceipt | None) -> str:
    """Why a day is behind; empty if it is not."""
    if receipt is None:
        return "it is published and not exported"
    if not published.is_there(receipt, export):
        return "it was exported to another place than the spec names now"
    if receipt.of != day.step:
        return f"its {receipt.of} were exported, and the spec names {day.step} now"
    return "" if published.is_of(receipt, day) else "its day was corrected since it was exported"


def _pending(pipeline: Pipeline, name: str, day: PublishedDay, why: str, look: StateLook, gone: str) -> PendingDay:
    export = pipeline.spec.exports[name]
    version = digest(day.step, *published.version_of(day), *day.table.files, published.settings_of(export))[:16]
    return PendingDay(name, day.day, version, why, _why_apart(pipeline, name, day, look) or gone, is_gone=bool(gone))


def _why_apart(pipeline: Pipeline, name: str, day: PublishedDay, look: StateLook) -> str:
    """Why a day cannot be exported now: one of its steps is just being published."""
    predictions = [day] if day.step == "predictions" else look.published_days_of("predictions", [day.day])
    features = _features(pipeline, name, [day], look)
    if not predictions:
        return "its predictions are not published"
    return why_apart(next(iter(features), None), predictions[0], day if day.step == "decisions" else None)


def _features(pipeline: Pipeline, name: str, days: Sequence[PublishedDay], look: StateLook) -> list[PublishedDay]:
    """The features of days, if the export reads them."""
    if not days or not reads_features(pipeline, name):
        return []
    return look.published_days_of("validated_features", [day.day for day in days])
