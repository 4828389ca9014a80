"""Invariants: the checks that an asset decides about its own work, before it is published.

An asset computes its findings, `report` records every one of them with its day, and a blocking one that fails ends
the step there: nothing is published, nothing is materialised, downstream is skipped. Drift has a step of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import dagster as dg

BLOCKING = frozenset(
    {
        "input_is_present",
        "input_is_complete",
        "rows_are_conserved",
        "keys_are_unique",
        "some_rows_are_accepted",
        "scores_are_probabilities",
        "bundle_is_intact",
        "golden_rows_agree",
    }
)


@dataclass(frozen=True)
class Finding:
    """Whether a statement about an asset's work holds, and what was seen."""

    check: str
    passed: bool
    message: str
    """What was observed against what was expected; what to do if it failed."""
    figures: Mapping[str, int | float | str] = field(default_factory=dict)


def specs(
    asset: dg.AssetKey, statements: Mapping[str, str], partitions: dg.PartitionsDefinition | None = None
) -> list[dg.AssetCheckSpec]:
    """The check specs of an asset.

    Args:
        asset: its key.
        statements: what each check says, by its name.
        partitions: of the asset; without it each day's result would be stored under no day.
    """
    return [
        dg.AssetCheckSpec(
            name, asset=asset, description=description, blocking=name in BLOCKING, partitions_def=partitions
        )
        for name, description in statements.items()
    ]


def report(asset: dg.AssetKey, findings: Iterable[Finding]) -> Iterator[dg.AssetCheckResult]:
    """Record every finding; then fail the step if a blocking one did not pass.

    Raises:
        Failure: naming the failed checks; not retried, the same data would fail again.
    """
    failed = []
    for finding in findings:
        blocks = finding.check in BLOCKING
        yield dg.AssetCheckResult(
            passed=finding.passed,
            asset_key=asset,
            check_name=finding.check,
            severity=dg.AssetCheckSeverity.ERROR if blocks else dg.AssetCheckSeverity.WARN,
            description=finding.message,
            metadata=dict(finding.figures),
        )
        if blocks and not finding.passed:
            failed.append(finding)
    if failed:
        raise dg.Failure(
            description="; ".join(f"{finding.check}: {finding.message}" for finding in failed),
            metadata={finding.check: finding.message for finding in failed},
            allow_retries=False,
        )
