"""Asset checks in Dagster: their specs, their results, and the failure of a step that a blocking check stops.

An asset computes its findings before it publishes anything. `report` records each of them, in Dagster and in the
state; a blocking one that fails ends the step there: nothing is published or materialised, downstream is skipped.
Severity, blocking and thresholds come from the spec. Drift has a step of its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import trailing_days
from batch_scoring.defs.metadata import ui_table
from batch_scoring.errors import BatchScoringError, FailureClass
from batch_scoring.monitoring import charts
from batch_scoring.monitoring.finding import Finding, is_error, record, settings, stops
from batch_scoring.monitoring.links import link, month_page
from batch_scoring.storage.state import DayChecks, State

_ASSETS_OF_THE_MODEL = ("model", "predictions", "decisions")


class RefusedError(BatchScoringError, dg.Failure):
    """A blocking check has failed; the same files, code and model would fail it again."""

    failure_class: FailureClass = "bad_input"

    def __init__(self, asset: str, description: str, metadata: Mapping[str, str] | None = None) -> None:
        """`asset`: the asset of the check, as the last part of its key."""
        super().__init__(description=description, metadata=metadata, allow_retries=False)
        if asset in _ASSETS_OF_THE_MODEL:
            self.failure_class = "bad_model"


class UnavailableError(BatchScoringError, dg.Failure):
    """A blocking check has failed because its files could not be read; the same files may pass the next time."""

    failure_class = "storage"


def specs(
    pipeline: Pipeline,
    asset: dg.AssetKey,
    statements: Mapping[str, str],
    partitions: dg.PartitionsDefinition | None = None,
) -> list[dg.AssetCheckSpec]:
    """The check specs of an asset.

    Args:
        pipeline: whose spec says what blocks.
        asset: its key.
        statements: the description of each check, by its name.
        partitions: of the asset; without them the results would belong to no day.
    """
    return [
        dg.AssetCheckSpec(
            name,
            asset=asset,
            description=description,
            blocking=settings(pipeline, name).blocking,
            partitions_def=partitions,
        )
        for name, description in statements.items()
    ]


def report(
    pipeline: Pipeline,
    asset: dg.AssetKey,
    findings: Sequence[Finding],
    run_id: str,
    day: str | None = None,
    *,
    kept_as: str | None = None,
) -> Iterator[dg.AssetCheckResult]:
    """Record every finding; then fail the step if a blocking one did not pass.

    Args:
        pipeline: whose spec says what blocks.
        asset: whose checks.
        findings: all of them: a check without a result would stay planned for ever.
        run_id: of the run that found them.
        day: of the asset; None if it has no days.
        kept_as: the name in the state; the asset's if None.

    Raises:
        RefusedError: naming the failed checks.
        UnavailableError: the same, if the store is at fault and may recover.
    """
    findings = [finding.printable() for finding in findings]
    name = kept_as or asset.path[-1]
    before = trailing_days.checks(State(pipeline.output), name, day) if day else []
    page = _page(pipeline, day) if day else {}
    if day:
        record(pipeline, name, findings, run_id, day)
    for finding in findings:
        yield dg.AssetCheckResult(
            passed=finding.passed,
            asset_key=asset,
            check_name=finding.check,
            severity=dg.AssetCheckSeverity.ERROR if is_error(pipeline, finding) else dg.AssetCheckSeverity.WARN,
            description=finding.message,
            metadata=metadata(finding, before, day) | page,
        )
    if failed := [finding for finding in findings if stops(pipeline, finding)]:
        raise _failure(asset, failed)


def _failure(asset: dg.AssetKey, failed: Sequence[Finding]) -> dg.Failure:
    """The failure of a step whose blocking checks did not pass."""
    description = "; ".join(f"{finding.check}: {finding.message}" for finding in failed)
    messages = {finding.check: finding.message for finding in failed}
    if all(finding.transient for finding in failed):
        return UnavailableError(description, messages, allow_retries=False)
    return RefusedError(asset.path[-1], description, messages)


def metadata(finding: Finding, before: Iterable[DayChecks], day: str | None) -> dict[str, Any]:
    """Metadata that the UI shows beside a result: the number, its limits, the days before."""
    shown = {name: ui_table(figure) if isinstance(figure, list) else figure for name, figure in finding.figures.items()}
    if finding.observed is None:
        return shown
    names = ("threshold",) if len(finding.limits) == 1 else ("threshold_low", "threshold_high")
    limits = {name: float(limit) for name, limit in zip(names, finding.limits, strict=False)}
    shown = {"observed": float(finding.observed), "expected": finding.expected, **limits, **shown}
    days = [
        (checks.day, recorded.observed, recorded.passed)
        for checks in before
        if (recorded := checks.checks.get(finding.check)) and recorded.observed is not None
    ]
    if day:
        days.append((day, float(finding.observed), finding.passed))
        shown["trend"] = charts.trend(days, finding.limits, f"{finding.check}, {len(days)} days")
    return shown


def _page(pipeline: Pipeline, day: str) -> dict[str, dg.MetadataValue]:
    """The link to the month's page, if that was drawn."""
    path = month_page(day[:7])
    return {"report": link(pipeline, path)} if pipeline.output.list(path) else {}
