"""Findings: the results of checks, their severity under the spec, and their record in the state.

Every check computes a `Finding` from figures that are at hand already. `defs/asset_checks.py` presents it in Dagster.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import StateError
from batch_scoring.runtime.printable import printable
from batch_scoring.storage.state import CheckRecord, DayChecks, State


@dataclass(frozen=True)
class Finding:
    """Whether a statement about an asset's work holds, and what was observed."""

    check: str
    passed: bool
    message: str
    """What was observed against what was expected; what to do if it failed."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """More that an operator may ask for: numbers, text, tables as lists of records, links."""
    observed: float | None = None
    """The one number that the check is about; its trend over the days is shown."""
    expected: str = ""
    """The expected value, as text."""
    limits: Sequence[float] = ()
    """What it is compared with: one number, or the lower and the upper."""
    blocks: bool = False
    """Whether this failure stops the day although the check is not a blocking one (it exceeds a second limit)."""
    transient: bool = False
    """Whether the same files may pass the next time: the store is at fault."""

    def printable(self) -> "Finding":
        """The finding without control characters: it may quote a file's columns and cells."""
        figures = {
            name: printable(figure) if isinstance(figure, str) else figure for name, figure in self.figures.items()
        }
        return replace(self, message=printable(self.message), figures=figures)


def settings(pipeline: Pipeline, check: str) -> Any:  # noqa: ANN401  (one of spec.Checks' sections)
    """The spec's section of a check: whether it blocks, its severity, its thresholds."""
    return getattr(pipeline.spec.checks, check)


def stops(pipeline: Pipeline, finding: Finding) -> bool:
    """Whether a finding keeps the work from being published."""
    return not finding.passed and (settings(pipeline, finding.check).blocking or finding.blocks)


def is_error(pipeline: Pipeline, finding: Finding) -> bool:
    """Whether a finding has the severity error, or else warning."""
    return stops(pipeline, finding) or settings(pipeline, finding.check).severity == "error"


def record(pipeline: Pipeline, name: str, findings: Iterable[Finding], run_id: str, day: str) -> None:
    """Record a day's findings in the state; a run with the same findings as before writes nothing.

    Args:
        pipeline: whose state.
        name: of the document, the asset's in most cases.
        findings: all of the day.
        run_id: of the run that found them.
        day: of the asset.
    """
    state = State(pipeline.output)
    records = {
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
        if before and before.checks == records:
            return
    state.put_checks(name, DayChecks(day=day, run_id=run_id, at=datetime.now(UTC), checks=records))
