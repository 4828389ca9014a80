"""The drift step: after the publication, a day is compared with the model's reference.

It never stops or fails a night: what goes wrong in here is a failed result that says so. The figures of every day are
kept in the state; Evidently's pages of the days that alarm, and of the newest ones.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs.asset_checks import Finding, report, specs
from batch_scoring.defs.execution import executors
from batch_scoring.defs.metadata import asset_key, days, link
from batch_scoring.errors import NotComparableError
from batch_scoring.monitoring.drift.comparison import Compared, Side, compare
from batch_scoring.monitoring.drift.distances import (
    LEAST_ROWS,
    LEAST_TRAILING_DAYS,
    TRAILING_DAYS,
    TRAILING_REFERENCE_DAYS,
    Share,
    Tested,
)
from batch_scoring.monitoring.drift.pages import DAY_PAGE, TRAILING_PAGES, Drawn, draw, page_path
from batch_scoring.runtime.printable import clean

CHECKS: dict[Side, tuple[str, str, str]] = {
    "features": (
        "validated_features",
        "features_match_reference",
        "The day's features, and those of the trailing 28 days, are distributed as in the model's reference.",
    ),
    "predictions": (
        "predictions",
        "predictions_match_reference",
        "The scores of the trailing 28 days are distributed as in the model's reference.",
    ),
}
"""Asset, check and statement."""

NAMED = 5
"""Columns that a message names."""


def drift_checks(pipeline: Pipeline) -> dg.AssetChecksDefinition:
    """The checks of a pipeline, in one step."""
    keys = {side: asset_key(pipeline, asset) for side, (asset, _, _) in CHECKS.items()}

    @dg.multi_asset_check(
        name=f"{pipeline.name}_drift",
        description=__doc__,
        specs=[
            spec
            for side, (_, check, statement) in CHECKS.items()
            for spec in specs(pipeline, keys[side], {check: statement}, days(pipeline))
        ],
        can_subset=True,
        **executors.step_options(pipeline, "drift"),
    )
    def _drift(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        selected = {key.name for key in context.selected_asset_check_keys}
        sides = [side for side, (_, check, _) in CHECKS.items() if check in selected]
        day, run_id = context.op_execution_context.partition_key, context.run.run_id
        try:
            found = findings(pipeline, day, sides, run_id)
            results = [
                result
                for side, finding in found.items()
                for result in report(pipeline, keys[side], [finding], run_id, day, kept_as=f"{side}_drift")
            ]
        except Exception as error:  # of whatever kind: the scores are published, the night goes on
            clean(error)
            context.log.exception("the comparison with the reference failed")
            results = [_failed(pipeline, keys[side], side, error, run_id, day) for side in sides]
        yield from results

    return _drift


def findings(pipeline: Pipeline, day: str, sides: Sequence[Side], run_id: str) -> dict[Side, Finding]:
    """What the checks say of a published day; its pages are drawn.

    Raises:
        StateError: the day is not published.
        BundleError: the model's bundle is damaged.
    """
    try:
        compared = compare(pipeline, day, sides, run_id)
    except NotComparableError as missing:
        return {side: Finding(CHECKS[side][1], True, f"not tested: {missing}") for side in sides}
    pages, trouble = {}, {}
    try:
        pages = draw(pipeline, compared)
    except Exception as error:  # Evidently may stumble over a column; the verdict is known without it
        trouble = {"page_could_not_be_drawn": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    return {side: _finding(pipeline, compared, side, pages, trouble) for side in sides}


def _finding(
    pipeline: Pipeline, compared: Compared, side: Side, pages: dict[str, Drawn], trouble: dict[str, str]
) -> Finding:
    """One side's result: the day's columns and the trailing ones, of which the worst is shown."""
    of_day = compared.of_day if side == "features" else []
    trailing = compared.trailing_tests.get(side, [])
    drifted_day = [test for test in of_day if test.drifted]
    drifted_trailing = [test for test in trailing if test.drifted]
    shown: dict[str, Any] = {"rows_compared": compared.sample.rows.num_rows, "rows": compared.sample.of, **trouble}
    if side == "features" and (left_out := compared.reference.profile.left_out):
        shown["not_tested"] = ", ".join(f"{name} ({reason})" for name, reason in left_out.items())
    said = []
    if side == "features":
        said.append(_of_day(compared, drifted_day))
    since = compared.since.get(side)
    said.append(_of_trailing(compared, side, trailing, drifted_trailing, pipeline.spec.retention.samples_days))
    if since and since != compared.day and not drifted_day:
        shown["continues_since"] = since  # a state that was told when it began
    if since and pipeline.output.list(began := page_path(since, TRAILING_PAGES[side])):
        shown["page_of_the_beginning"] = link(pipeline, began)
    for name, page in pages.items():
        if _is_of(name, side):
            shown[name.partition(".")[0]] = link(pipeline, page.path)
            if page.left_out:
                shown[f"{name.partition('.')[0]}_leaves_out"] = ", ".join(page.left_out)
    if records := _table(of_day, trailing, compared.sample.of):
        shown["worst_columns"] = records
    ratios = [_ratio(test) for test in (*of_day, *trailing)]
    return Finding(
        CHECKS[side][1],
        not (drifted_day or drifted_trailing),
        "; ".join(said),
        shown,
        observed=max(ratios, default=None),
        expected="every column below its threshold (1)",
        limits=[1.0],
    )


def _of_day(compared: Compared, drifted: Sequence[Tested | Share]) -> str:
    if compared.sample.of < LEAST_ROWS:
        return f"the day: not enough rows, {compared.sample.of}, expected at least {LEAST_ROWS}"
    tested = len(compared.day_tests)
    if drifted:
        return f"the day: beyond the threshold: {_named(drifted)}"
    if not compared.of_day:
        return "the day: no column has enough values to be tested"
    return f"the day: {tested} columns are distributed as in the reference"


def _of_trailing(
    compared: Compared, side: Side, tests: Sequence[Tested], drifted: Sequence[Tested], samples_days: int | None
) -> str:
    kept = f"; samples are kept for {samples_days} days, says retention.samples_days" if samples_days else ""
    known, reference, since = compared.days[side], compared.reference.profile.days, compared.since.get(side)
    if not tests and reference < TRAILING_REFERENCE_DAYS:
        return (
            f"the trailing {TRAILING_DAYS} days: not tested, the reference has {reference} days, "
            f"expected at least {TRAILING_REFERENCE_DAYS}"
        )
    if not tests and known < LEAST_TRAILING_DAYS:
        return (
            f"the trailing {TRAILING_DAYS} days: not tested, {known} of them are there, "
            f"expected at least {LEAST_TRAILING_DAYS}" + (" by this model" if side == "predictions" else "") + kept
        )
    if drifted:
        begun = "since today" if since == compared.day else f"since {since}"
        return f"the trailing {TRAILING_DAYS} days, {begun}: beyond the threshold: {_named(drifted)}"
    return f"the trailing {TRAILING_DAYS} days: {len(tests)} columns are distributed as in the reference"


def _named(drifted: Sequence[Tested | Share]) -> str:
    worst = sorted(drifted, key=_ratio, reverse=True)
    words = [f"{test.column} ({_seen(test)}, expected below {_limit(test)})" for test in worst[:NAMED]]
    return ", ".join(words) + (f" and {len(worst) - NAMED} more" if len(worst) > NAMED else "")


def _seen(test: Tested | Share) -> str:
    return f"{test.share:.1%} {test.what}" if isinstance(test, Share) else f"distance {test.distance:.3f}"


def _limit(test: Tested | Share) -> str:
    return f"{test.threshold:.1%}" if isinstance(test, Share) else f"{test.threshold:.3f}"


def _ratio(test: Tested | Share) -> float:
    return (test.share if isinstance(test, Share) else test.distance) / test.threshold


def _table(
    of_day: Sequence[Tested | Share], trailing: Sequence[Tested], rows_of_day: int
) -> dg.TableMetadataValue | None:
    """Every column that was tested, the worst first; those without a missing value are not listed for that."""
    rows: list[tuple[str, Tested | Share]]
    rows = [(test.what if isinstance(test, Share) else "day", test) for test in of_day if _ratio(test)]
    rows += [("28 days", test) for test in trailing]
    records = [
        dg.TableRecord(
            {
                "column": test.column,
                "tested": horizon,
                "rows": rows_of_day if isinstance(test, Share) else test.rows,
                "observed": round(test.share if isinstance(test, Share) else test.distance, 4),
                "threshold": round(test.threshold, 4),
                "drifted": test.drifted,
            }
        )
        for horizon, test in sorted(rows, key=lambda row: _ratio(row[1]), reverse=True)
    ]
    return dg.MetadataValue.table(records) if records else None


def _is_of(page: str, side: Side) -> bool:
    return page == TRAILING_PAGES[side] or (page == DAY_PAGE)


def _failed(
    pipeline: Pipeline, key: dg.AssetKey, side: Side, error: Exception, run_id: str, day: str
) -> dg.AssetCheckResult:
    """The result of a comparison that went wrong, kept like any other if the state can be written at all."""
    message = f"the comparison failed: {type(error).__name__}: {' '.join(str(error).split())}; the scores stand"
    finding = Finding(CHECKS[side][1], False, message)
    with contextlib.suppress(Exception):
        return next(report(pipeline, key, [finding], run_id, day, kept_as=f"{side}_drift"))
    warning = dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        passed=False, asset_key=key, check_name=finding.check, severity=warning, description=message
    )
