"""Evidently's pages beside the tables: of what alarms, and of the newest days.

reports/dt=…/drift.html          the day, its features and scores
reports/dt=…/trailing.html       the features of the 28 days that end with it
reports/dt=…/predictions.html    the scores of those days
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.inference.reference_profile import Column
from batch_scoring.ingest import landing_files
from batch_scoring.monitoring.drift.comparison import Compared, Side, known_drift
from batch_scoring.monitoring.drift.distances import Tested
from batch_scoring.storage.state import DayDrift, State

DAY_PAGE = "drift.html"
TRAILING_PAGES: Mapping[Side, str] = {"features": "trailing.html", "predictions": "predictions.html"}


@dataclass(frozen=True)
class Drawn:
    """A page that was drawn."""

    path: str
    """In the pipeline's output."""
    left_out: tuple[str, ...]
    """Columns without a value on one side, which are not on the page."""


def draw(pipeline: Pipeline, compared: Compared) -> dict[str, Drawn]:
    """Draw the pages that somebody will look at, by name; those of older days that did not alarm are taken away."""
    newest = _newest(pipeline)
    is_new, profile = compared.day in newest, compared.reference.profile
    drawn = {}
    if "features" in compared.trailing_tests and (compared.day_drifted or (is_new and compared.sample.rows.num_rows)):
        rows = compared.reference.rows(date.fromisoformat(compared.day))
        columns = {**profile.columns, **profile.scores}
        tests = compared.day_tests
        if compared.day_drifted and not any(test.drifted for test in tests):
            tests = []  # shares alarm, which Evidently has no test of: it must not say that all is well
        drawn[DAY_PAGE] = _page(pipeline, compared, DAY_PAGE, rows, compared.sample.rows, columns, tests)
    for side, tests in compared.trailing_tests.items():
        if tests and (compared.begins(side) or is_new):
            name, current = TRAILING_PAGES[side], compared.trailing_rows[side]
            columns = profile.columns if side == "features" else profile.scores
            drawn[name] = _page(pipeline, compared, name, compared.reference.rows(), current, columns, tests)
    _tidy(pipeline, {*newest})
    return drawn


def _page(
    pipeline: Pipeline,
    compared: Compared,
    name: str,
    reference: pa.Table,
    current: pa.Table,
    columns: Mapping[str, Column],
    tests: Sequence[Tested],
) -> Drawn:
    from batch_scoring.monitoring.drift import evidently_report

    kinds = {column: described.kind for column, described in columns.items() if column in current.column_names}
    path = page_path(compared.day, name)
    page = evidently_report.draw(reference, current, kinds, tests)
    pipeline.output.put(path, page.html)
    return Drawn(path, page.left_out)


def _newest(pipeline: Pipeline) -> list[str]:
    """The newest days that have landed, as many as the spec keeps pages of."""
    count = pipeline.spec.drift.reports
    if not count:
        return []
    return sorted(day for day in landing_files.list_days(pipeline.landing) if re.fullmatch(r"\d{4}-\d\d-\d\d", day))[
        -count:
    ]


def _tidy(pipeline: Pipeline, kept: set[str]) -> None:
    """Take away the pages of days that are not the newest, unless their day alarms."""
    state, output = State(pipeline.output), pipeline.output
    ours = (DAY_PAGE, *TRAILING_PAGES.values())
    for file in output.list("reports/dt="):
        day, _, name = file.path.removeprefix("reports/dt=").partition("/")
        if day not in kept and name in ours and not _told(known_drift(state, day), name):
            output.remove(file.path)


def _told(drift: DayDrift | None, name: str) -> bool:
    """Whether a day's page is about something that has alarmed."""
    if drift is None:
        return False
    if name == DAY_PAGE:
        return any(column.drifted for column in drift.features if column.horizon != "trailing")
    return any(drift.since.get(side) == drift.day for side, page in TRAILING_PAGES.items() if page == name)


def page_path(day: str, name: str) -> str:
    """Below the pipeline's output."""
    return f"reports/dt={day}/{name}"
