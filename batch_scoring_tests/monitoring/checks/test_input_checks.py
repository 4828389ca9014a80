"""The landing files of a day, found and inspected; its rows compared with those of the days before."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from batch_scoring.monitoring.checks.input_checks import find
from batch_scoring_tests.checked import LATE, days, finding, settings
from batch_scoring_tests.tiny import DAY, TinyProject, error_of


def busy(tiny: TinyProject, disturb: Callable[[int], object]) -> Any:  # noqa: ANN401
    """The pipeline, with an uploader who does something right after each listing."""
    landing = tiny.pipeline.landing
    count = itertools.count(1)

    class Meanwhile(type(landing)):  # type: ignore[misc]
        def look(self, prefix: str = "") -> list:  # type: ignore[type-arg]
            listed = super().look(prefix)
            disturb(next(count))
            return listed

    class Busy:
        spec, landing = tiny.pipeline.spec, Meanwhile(tiny.pipeline.landing.uri)

    return Busy()


def test_a_day_whose_files_change_after_each_listing_is_not_pinned_and_may_pass_later(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(10))
    found = find(busy(tiny, lambda count: tiny.land(DAY, tiny.rows(10 + count))), DAY)
    assert (found.files, list(found.broken)) == ((), [f"dt={DAY}/a.parquet"])
    assert [f.passed for f in found.findings if f.check == "input_is_complete"] == [False]
    assert [f.transient for f in found.findings if f.check == "input_is_complete"] == [True]


def test_a_file_that_changes_once_after_the_listing_is_pinned_as_it_is_now(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(10))
    found = find(busy(tiny, lambda count: tiny.land(DAY, tiny.rows(11)) if count == 1 else None), DAY)
    assert [file.rows for file in found.files] == [11] and not found.broken


def test_a_file_that_goes_after_the_listing_is_not_there(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(10))
    file = Path(tiny.pipeline.landing.uri, f"dt={DAY}", "a.parquet")
    found = find(busy(tiny, lambda count: file.unlink(missing_ok=True)), DAY)
    assert found.files == () and [f.passed for f in found.findings] == [False, True]


def test_a_day_with_half_of_the_rows_warns_and_is_scored(tiny: TinyProject) -> None:
    days(tiny, lambda number: tiny.rows(100 + number), steps=["raw_input"])
    tiny.land(LATE, tiny.rows(50))
    result = tiny.run(LATE)
    found = finding(result, "row_count_is_usual")
    assert result.success and not found.passed and found.severity == dg.AssetCheckSeverity.WARN
    assert found.description == (
        "50 rows, expected 75 to 134 rows, by the 8 days before; ask the supplier of the files, then upload what is "
        "missing or remove the surplus"
    )
    figures = {name: value.value for name, value in found.metadata.items() if name != "trend"}
    assert figures == {
        "observed": 50.0,
        "expected": "75 to 134 rows, by the 8 days before",
        "threshold_low": 75.0,
        "threshold_high": 133.75,
    }
    assert "row_count_is_usual, 9 days" in str(found.metadata["trend"].value)


def test_it_stops_the_day_if_the_spec_says_so(tiny: TinyProject) -> None:
    settings(tiny, row_count_is_usual={"blocking": True})
    days(tiny, lambda number: tiny.rows(100), steps=["raw_input"])
    tiny.land(LATE, tiny.rows(50))
    result = tiny.run(LATE, raise_on_error=False)
    assert error_of(result).startswith("row_count_is_usual: 50 rows, expected 75 to 125 rows")
    assert finding(result, "row_count_is_usual").severity == dg.AssetCheckSeverity.ERROR
    assert not tiny.pipeline.output.list(f"state/dt={LATE}/input.json"), "nothing is pinned"
    said = tiny.state.checks("raw_input", LATE)
    assert said is not None and not said.checks["row_count_is_usual"].passed, "it is remembered all the same"


def test_no_history_yet_is_said_and_not_failed(tiny: TinyProject) -> None:
    days(tiny, lambda number: tiny.rows(100), 6, ["raw_input"])
    tiny.land(LATE, tiny.rows(1))
    found = finding(tiny.run(LATE), "row_count_is_usual")
    assert found.passed and "no history yet: 6 of the 28 days before" in (found.description or "")
