"""Findings about exports: whether the sink holds every row, and whether all exported days are as published."""

from batch_scoring.config.days import ranges
from batch_scoring.config.names import export_asset
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import trailing_days
from batch_scoring.delivery.exports import pending
from batch_scoring.monitoring.finding import Finding
from batch_scoring.storage.state import ExportReceipt, State

CHECKS = {
    "export_is_whole": "The sink shows as many rows as were sent to it.",
    "exports_are_current": "What was exported of every day is what is published of it.",
}


def whole(receipt: ExportReceipt) -> Finding:
    """Compare the rows in the sink with those that were sent."""
    figures = {"rows": receipt.rows}
    if receipt.sent is None:
        return Finding("export_is_whole", True, f"{receipt.outcome}: no row was sent", figures)
    return Finding(
        "export_is_whole",
        receipt.rows == receipt.sent,
        f"{receipt.rows:,} rows in the sink of {receipt.sent:,} that were sent",
        figures,
        observed=receipt.rows,
        expected=str(receipt.sent),
        limits=[receipt.sent],
    )


def not_whole(error: Exception) -> Finding:
    """The finding of a sink that has counted fewer or more rows than were sent."""
    return Finding("export_is_whole", False, str(error))


def current(pipeline: Pipeline, name: str, day: str) -> Finding:
    """Look for exported days that were corrected since and are too old for the sensor.

    Args:
        pipeline: whose export.
        name: of the export.
        day: that was just exported.
    """
    days = sorted(pending.outdated(pipeline, name) - {one.day for one in pending.recent(pipeline, name)})
    if not days:
        return Finding("exports_are_current", True, "every exported day is as published", observed=0, limits=[0])
    message = (
        f"{len(days)} {'day was' if len(days) == 1 else 'days were'} corrected since the export: "
        f"{', '.join(ranges(days))}; run: batch-scoring export {pipeline.name} {name} {days[0]} {days[-1]}"
    )
    return Finding(
        "exports_are_current",
        False,
        message,
        _since(pipeline, name, day, message),
        observed=len(days),
        expected="0",
        limits=[0],
    )


def _since(pipeline: Pipeline, name: str, day: str, message: str) -> dict[str, str]:
    """Since which day the same days are told, so that they cause one alert."""
    before = trailing_days.checks(State(pipeline.output), export_asset(name), day)
    found = before[-1].checks.get("exports_are_current") if before else None
    return {"continues_since": before[-1].day} if found and found.message == message else {}
