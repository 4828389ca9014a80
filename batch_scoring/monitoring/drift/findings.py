"""The findings of the drift checks: a published day against the reference of its model.

The figures of every day are kept in the state; Evidently's pages of the days that alarm, and of the newest ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.trailing_days import TRAILING_DAYS
from batch_scoring.errors import NotComparableError
from batch_scoring.monitoring.drift.comparison import Compared, Side, compare
from batch_scoring.monitoring.drift.distances import (
    LEAST_ROWS,
    LEAST_TRAILING_DAYS,
    TRAILING_REFERENCE_DAYS,
    Proportion,
    Tested,
)
from batch_scoring.monitoring.drift.pages import DAY_PAGE, TRAILING_PAGES, Drawn, draw, page_path
from batch_scoring.monitoring.finding import Finding
from batch_scoring.monitoring.links import link


class DriftCheck(NamedTuple):
    """A check of the drift step."""

    asset: str
    name: str
    statement: str


CHECKS: Mapping[Side, DriftCheck] = {
    "features": DriftCheck(
        "validated_features",
        "features_match_reference",
        "The day's features, and those of the trailing 28 days, are distributed as in the model's reference.",
    ),
    "predictions": DriftCheck(
        "predictions",
        "predictions_match_reference",
        "The scores of the trailing 28 days are distributed as in the model's reference.",
    ),
}

NAMED = 5
"""Columns that a message names."""


def findings(pipeline: Pipeline, day: str, sides: Sequence[Side], run_id: str) -> dict[Side, Finding]:
    """The drift findings of a published day; its pages are drawn.

    Raises:
        StateError: the day is not published.
        BundleError: the model's bundle is damaged.
    """
    try:
        compared = compare(pipeline, day, sides, run_id)
    except NotComparableError as missing:
        return {side: Finding(CHECKS[side].name, True, f"not tested: {missing}") for side in sides}
    pages, page_error = {}, {}
    try:
        pages = draw(pipeline, compared)
    except Exception as error:  # Evidently may stumble over a column; the result is known without it
        page_error = {"page_could_not_be_drawn": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    return {side: _finding(pipeline, compared, side, pages, page_error) for side in sides}


def _finding(
    pipeline: Pipeline, compared: Compared, side: Side, pages: Mapping[str, Drawn], page_error: Mapping[str, str]
) -> Finding:
    """One side's finding: the day's columns and the trailing ones, of which the worst is shown."""
    of_day = compared.of_day if side == "features" else []
    trailing = compared.trailing_tests.get(side, [])
    drifted_day = [test for test in of_day if test.drifted]
    drifted_trailing = [test for test in trailing if test.drifted]
    messages = [_day_message(compared, drifted_day)] if side == "features" else []
    messages.append(_trailing_message(compared, side, trailing, drifted_trailing, pipeline.spec.retention.samples_days))
    figures: dict[str, Any] = {"rows_compared": compared.sample.rows.num_rows, "rows": compared.sample.of, **page_error}
    if side == "features" and (left_out := compared.reference.profile.left_out):
        figures["not_tested"] = ", ".join(f"{name} ({reason})" for name, reason in left_out.items())
    since = compared.since.get(side)
    if since and since != compared.day and not drifted_day:
        figures["continues_since"] = since  # a state that was notified when it began
    figures |= _links(pipeline, side, since, pages)
    if records := _table(of_day, trailing, compared.sample.of):
        figures["worst_columns"] = records
    return Finding(
        CHECKS[side].name,
        not (drifted_day or drifted_trailing),
        "; ".join(messages),
        figures,
        observed=max(map(_ratio, (*of_day, *trailing)), default=None),
        expected="every column below its threshold (1)",
        limits=[1.0],
    )


def _links(pipeline: Pipeline, side: Side, since: str | None, pages: Mapping[str, Drawn]) -> dict[str, Any]:
    """Links to a side's pages, and the columns that are not on them."""
    links: dict[str, Any] = {}
    if since and pipeline.output.list(began := page_path(since, TRAILING_PAGES[side])):
        links["page_of_the_beginning"] = link(pipeline, began)
    for file, page in pages.items():
        if file in (DAY_PAGE, TRAILING_PAGES[side]):
            name = file.partition(".")[0]
            links[name] = link(pipeline, page.path)
            if page.left_out:
                links[f"{name}_leaves_out"] = ", ".join(page.left_out)
    return links


def _day_message(compared: Compared, drifted: Sequence[Tested | Proportion]) -> str:
    if compared.sample.of < LEAST_ROWS:
        return f"the day: not enough rows, {compared.sample.of}, expected at least {LEAST_ROWS}"
    tested = len(compared.day_tests)
    if drifted:
        return f"the day: beyond the threshold: {_named(drifted)}"
    if not compared.of_day:
        return "the day: no column has enough values to be tested"
    return f"the day: {tested} columns are distributed as in the reference"


def _trailing_message(
    compared: Compared, side: Side, tests: Sequence[Tested], drifted: Sequence[Tested], samples_days: int | None
) -> str:
    kept = f"; samples are kept for {samples_days} days (retention.samples_days)" if samples_days else ""
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


def _named(drifted: Sequence[Tested | Proportion]) -> str:
    """The worst columns, with their figures."""
    worst = sorted(drifted, key=_ratio, reverse=True)
    words = [f"{test.column} ({_seen(test)}, expected below {_limit(test)})" for test in worst[:NAMED]]
    return ", ".join(words) + (f" and {len(worst) - NAMED} more" if len(worst) > NAMED else "")


def _seen(test: Tested | Proportion) -> str:
    return f"{test.share:.1%} {test.what}" if isinstance(test, Proportion) else f"distance {test.distance:.3f}"


def _limit(test: Tested | Proportion) -> str:
    return f"{test.threshold:.1%}" if isinstance(test, Proportion) else f"{test.threshold:.3f}"


def _ratio(test: Tested | Proportion) -> float:
    return (test.share if isinstance(test, Proportion) else test.distance) / test.threshold


def _table(of_day: Sequence[Tested | Proportion], trailing: Sequence[Tested], rows_of_day: int) -> list[dict[str, Any]]:
    """Every column that was tested, the worst first; not the missing values of columns that have none."""
    rows: list[tuple[str, Tested | Proportion]]
    rows = [(test.what if isinstance(test, Proportion) else "day", test) for test in of_day if _ratio(test)]
    rows += [("28 days", test) for test in trailing]
    return [
        {
            "column": test.column,
            "tested": horizon,
            "rows": rows_of_day if isinstance(test, Proportion) else test.rows,
            "observed": round(test.share if isinstance(test, Proportion) else test.distance, 4),
            "threshold": round(test.threshold, 4),
            "drifted": test.drifted,
        }
        for horizon, test in sorted(rows, key=lambda row: _ratio(row[1]), reverse=True)
    ]
