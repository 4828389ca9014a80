"""Evidently's pages beside the tables: of what alarms, and of the newest days.

reports/dt=…/drift.html          the day, its features and scores
reports/dt=…/trailing.html       the features of the 28 days that end with it
reports/dt=…/predictions.html    the scores of those days
"""

from collections.abc import Mapping, Sequence
from datetime import date

import pyarrow as pa

from batch_scoring import landing
from batch_scoring.comparison import Compared, Side
from batch_scoring.drift import Tested
from batch_scoring.pipeline import Pipeline
from batch_scoring.profile import Column
from batch_scoring.state import DayDrift, State

DAY_PAGE = "drift.html"
TRAILING_PAGES: Mapping[Side, str] = {"features": "trailing.html", "predictions": "predictions.html"}


def draw(pipeline: Pipeline, compared: Compared) -> dict[str, str]:
    """Draw the pages that somebody will look at; their paths in the pipeline's output, by name.

    Pages of older days that did not alarm are taken away.
    """
    newest = _newest(pipeline)
    is_new, profile = compared.day in newest, compared.reference.profile
    drawn = {}
    if compared.day_drifted or (is_new and compared.sample.rows.num_rows):
        rows = compared.reference.rows(date.fromisoformat(compared.day))
        columns = {**profile.columns, **profile.scores}
        drawn[DAY_PAGE] = _page(pipeline, compared, DAY_PAGE, rows, compared.sample.rows, columns, compared.day_tests)
    for side, tests in compared.trailing_tests.items():
        if tests and (compared.begins(side) or is_new):
            name, current = TRAILING_PAGES[side], compared.trailing_rows[side]
            columns = profile.columns if side == "features" else profile.scores
            drawn[name] = _page(pipeline, compared, name, compared.reference.rows(), current, columns, tests)
    _tidy(pipeline, {*newest, compared.day})
    return drawn


def _page(
    pipeline: Pipeline, compared: Compared, name: str,
    reference: pa.Table, current: pa.Table, columns: Mapping[str, Column], tests: Sequence[Tested],
) -> str:  # fmt: skip
    from batch_scoring import evidently_page

    kinds = {column: described.kind for column, described in columns.items() if column in current.column_names}
    path = f"{_folder(compared.day)}{name}"
    pipeline.output.put(path, evidently_page.draw(reference, current, kinds, tests).html)
    return path


def _newest(pipeline: Pipeline) -> list[str]:
    """The newest days that have landed, as many as the spec keeps pages of."""
    count = pipeline.spec.drift.reports
    return sorted(landing.list_days(pipeline.landing))[-count:] if count else []


def _tidy(pipeline: Pipeline, kept: set[str]) -> None:
    """Take away the pages of other days, unless their day has alarmed."""
    state, output = State(pipeline.output), pipeline.output
    for file in output.list("reports/dt="):
        _, folder, name = file.path.split("/")[:3]
        day = folder.removeprefix("dt=")
        if day not in kept and name in (DAY_PAGE, *TRAILING_PAGES.values()) and not _told(state.drift(day), name):
            output.remove(file.path)


def _told(drift: DayDrift | None, name: str) -> bool:
    """Whether a day's page is about something that has alarmed."""
    if drift is None:
        return False
    if name == DAY_PAGE:
        return any(column.drifted for column in drift.features if column.horizon != "trailing")
    return any(drift.since.get(side) == drift.day for side, page in TRAILING_PAGES.items() if page == name)


def _folder(day: str) -> str:
    return f"reports/dt={day}/"
