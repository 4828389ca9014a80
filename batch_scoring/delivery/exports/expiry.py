"""Days whose rows retention has removed: what is published of them stays, and can no longer be read in whole."""

from collections.abc import Iterable

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import freshness
from batch_scoring.storage.state import PublishedDay

_KINDS = {"validated_features": "features", "decisions": "decisions"}
"""Steps whose rows may go; predictions stay."""


def why_gone(pipeline: Pipeline, read: Iterable[PublishedDay | None]) -> str:
    """Why a day cannot be exported any more; empty if it can.

    Args:
        pipeline: whose day.
        read: what is published of the steps that the export reads.

    Raises:
        OSError: the store did not answer.
    """
    for published in filter(None, read):
        kind = _KINDS.get(published.step)
        if kind and freshness.expired_days(pipeline, published.step, [published]):
            besides = "; without their columns it can still be exported" if kind == "features" else ""
            return (
                f"retention has removed the {kind} of {pipeline.name} {published.day} (retention.{kind}_days in the "
                f"spec); what was exported of the day stays{besides}"
            )
    return ""
