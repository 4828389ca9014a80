"""Invariants: the checks that an asset decides about its own work, before it is published.

An asset computes its findings, `report` records every one of them with its day, in Dagster and in the state, and a
blocking one that fails ends the step there: nothing is published, nothing is materialised, downstream is skipped.
Severity, blocking and thresholds come from the spec. Drift has a step of its own.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import history
from batch_scoring.defs.metadata import link, month_page
from batch_scoring.errors import BatchScoringError, FailureClass, StateError
from batch_scoring.monitoring import charts
from batch_scoring.runtime.printable import printable
from batch_scoring.storage.state import CheckRecord, DayChecks, State

_ASSETS_OF_THE_MODEL = ("model", "predictions")


class RefusedError(BatchScoringError, dg.Failure):
    """A blocking check has failed; the same files, code and model would fail it again."""

    failure_class: FailureClass = "bad_input"

    def __init__(self, asset: str, description: str, metadata: Mapping[str, str] | None = None) -> None:
        """`asset`: whose check it is, as the last part of its key."""
        super().__init__(description=description, metadata=metadata, allow_retries=False)
        if asset in _ASSETS_OF_THE_MODEL:
            self.failure_class = "bad_model"


class UnavailableError(BatchScoringError, dg.Failure):
    """A blocking check has failed because its files could not be read; the same files may pass the next time."""

    failure_class = "storage"


@dataclass(frozen=True)
class Finding:
    """Whether a statement about an asset's work holds, and what was seen."""

    check: str
    passed: bool
    message: str
    """What was observed against what was expected; what to do if it failed."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """More that an operator may ask for: numbers, text, Dagster's metadata values."""
    observed: float | None = None
    """The one number that the check is about; its trend over the days is shown."""
    expected: str = ""
    """What was expected of the number, in words."""
    limits: Sequence[float] = ()
    """What it is compared with: one number, or the lower and the upper."""
    blocks: bool = False
    """Whether this failure stops the day although the check is not a blocking one (it is beyond a second bound)."""
    transient: bool = False
    """Whether the same files may pass the next time: the trouble is with the store."""


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
        statements: what each check says, by its name.
        partitions: of the asset; without it each day's result would be stored under no day.
    """
    return [
        dg.AssetCheckSpec(
            name,
            asset=asset,
            description=description,
            blocking=_settings(pipeline, name).blocking,
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
        UnavailableError: the same, where the trouble is with the store and may pass.
    """
    findings = [_printable(finding) for finding in findings]
    name, state = kept_as or asset.path[-1], State(pipeline.output)
    before = history.checks(state, name, day) if day else []
    page = _page(pipeline, day) if day else {}
    if day:
        _remember(pipeline, name, findings, run_id, day)
    failed = []
    for finding in findings:
        is_stop = stops(pipeline, finding)
        yield dg.AssetCheckResult(
            passed=finding.passed,
            asset_key=asset,
            check_name=finding.check,
            severity=dg.AssetCheckSeverity.ERROR
            if is_stop or _settings(pipeline, finding.check).severity == "error"
            else dg.AssetCheckSeverity.WARN,
            description=finding.message,
            metadata=metadata(finding, before, day) | page,
        )
        if is_stop:
            failed.append(finding)
    if failed:
        description = "; ".join(f"{finding.check}: {finding.message}" for finding in failed)
        messages = {finding.check: finding.message for finding in failed}
        if all(finding.transient for finding in failed):
            raise UnavailableError(description, messages, allow_retries=False)
        raise RefusedError(asset.path[-1], description, messages)


def _printable(finding: Finding) -> Finding:
    """The finding without what a terminal obeys: it may name a file's columns and cells."""
    figures = {
        name: printable(figure) if isinstance(figure, str) else figure for name, figure in finding.figures.items()
    }
    return replace(finding, message=printable(finding.message), figures=figures)


def metadata(finding: Finding, before: Iterable[DayChecks], day: str | None) -> dict[str, Any]:
    """What the UI shows beside a result: the number, its limits, the days before."""
    shown = dict(finding.figures)
    if finding.observed is None:
        return shown
    names = ("threshold",) if len(finding.limits) == 1 else ("threshold_low", "threshold_high")
    limits = {name: float(limit) for name, limit in zip(names, finding.limits, strict=False)}
    shown = {"observed": float(finding.observed), "expected": finding.expected, **limits, **shown}
    days = [
        (said.day, record.observed, record.passed)
        for said in before
        if (record := said.checks.get(finding.check)) and record.observed is not None
    ]
    if day:
        days.append((day, float(finding.observed), finding.passed))
        shown["trend"] = charts.trend(days, finding.limits, f"{finding.check}, {len(days)} days")
    return shown


def _page(pipeline: Pipeline, day: str) -> dict[str, dg.MetadataValue]:
    """The link to the month's page, if that was drawn."""
    path = month_page(day[:7])
    return {"report": link(pipeline, path)} if pipeline.output.list(path) else {}


def stops(pipeline: Pipeline, finding: Finding) -> bool:
    """Whether a finding keeps the work from being published."""
    return not finding.passed and (_settings(pipeline, finding.check).blocking or finding.blocks)


def _remember(pipeline: Pipeline, name: str, findings: Iterable[Finding], run_id: str, day: str) -> None:
    """Keep what was found; a run that finds the same again writes nothing."""
    state = State(pipeline.output)
    said = {
        finding.check: CheckRecord(
            passed=finding.passed,
            observed=finding.observed,
            message=finding.message,
            stopped=stops(pipeline, finding),
        )
        for finding in findings
    }
    with contextlib.suppress(StateError):  # a damaged document is replaced
        before = state.checks(name, day)
        if before and before.checks == said:
            return
    state.put_checks(name, DayChecks(day=day, run_id=run_id, at=datetime.now(UTC), checks=said))


def _settings(pipeline: Pipeline, check: str) -> Any:  # noqa: ANN401  (one of spec.Checks' sections)
    return getattr(pipeline.spec.checks, check)
