"""Days whose rows retention has removed: what is published of them stays, and can no longer be read in whole."""

from collections.abc import Iterable

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import freshness
from batch_scoring.storage.state import PublishedDay, StepName

_KINDS: dict[StepName, str] = {"validated_features": "features", "decisions": "decisions"}
"""Steps whose rows may go; predictions stay."""


def why_gone(pipeline: Pipeline, read: Iterable[PublishedDay | None]) -> str:
    """Why a day cannot be exported any more; empty if it can. The arguments are those of `whys_gone`."""
    return next(iter(whys_gone(pipeline, read).values()), "")


def whys_gone(pipeline: Pipeline, read: Iterable[PublishedDay | None]) -> dict[str, str]:
    """Why days cannot be exported any more, by day; each table is opened once, whatever the number of days.

    Args:
        pipeline: whose days.
        read: what is published of the steps that the export reads.

    Raises:
        OSError: the store did not answer.
    """
    by_step: dict[StepName, list[PublishedDay]] = {}
    for published in filter(None, read):
        by_step.setdefault(published.step, []).append(published)
    found: dict[str, str] = {}
    for step, kind in _KINDS.items():
        days = by_step.get(step)
        for day in freshness.expired_days(pipeline, step, days) if days else ():
            found[day] = _why(pipeline, day, kind)
    return found


def _why(pipeline: Pipeline, day: str, kind: str) -> str:
    besides = "; without their columns it can still be exported" if kind == "features" else ""
    return (
        f"retention has removed the {kind} of {pipeline.name} {day} (retention.{kind}_days in the spec); what was "
        f"exported of the day stays{besides}"
    )
