"""Asset checks in Dagster: every finding is a result, and a blocking one that fails ends the step."""

from collections.abc import Sequence

import dagster as dg
import pytest

from batch_scoring.defs.asset_checks import RefusedError, UnavailableError, report
from batch_scoring.monitoring.finding import Finding
from batch_scoring_tests.checked import LATE, days, settings
from batch_scoring_tests.tiny import DAY, TinyProject

BY_FILE = [{"file": "a", "rows": 50}]
FEW = Finding("row_count_is_usual", False, "50 rows", {"by_file": BY_FILE}, observed=50, limits=[75])


def reported(
    tiny: TinyProject, findings: Sequence[Finding], day: str = DAY
) -> tuple[list[dg.AssetCheckResult], dg.Failure | None]:
    """The results, and the failure after them."""
    results = []
    try:
        for result in report(tiny.pipeline, dg.AssetKey([tiny.name, "raw_input"]), findings, "run", day):
            results.append(result)
    except dg.Failure as failure:
        return results, failure
    return results, None


def test_a_failed_check_warns_and_shows_its_figures_as_the_ui_shows_them(tiny: TinyProject) -> None:
    [result], failure = reported(tiny, [FEW])
    assert failure is None and not result.passed and result.severity == dg.AssetCheckSeverity.WARN
    assert (result.metadata["observed"].value, result.metadata["threshold"].value) == (50.0, 75.0)
    table = result.metadata["by_file"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data for record in table.records] == BY_FILE
    assert "report" not in result.metadata, "no page of the month was drawn"


def test_the_trend_has_the_days_before_and_the_page_of_the_month_is_linked(tiny: TinyProject) -> None:
    days(tiny, lambda number: tiny.rows(100), 2, ["raw_input"])
    tiny.pipeline.output.put("reports/month=2024-03.html", b"drawn")
    [result], _ = reported(tiny, [FEW], LATE)
    assert "row_count_is_usual, 3 days" in str(result.metadata["trend"].value)
    assert result.metadata["report"].value == f"{tiny.pipeline.output.uri}/reports/month=2024-03.html"


def test_a_blocking_failure_ends_the_step_after_the_last_result(tiny: TinyProject) -> None:
    settings(tiny, row_count_is_usual={"blocking": True})
    results, failure = reported(tiny, [FEW, Finding("input_is_present", True, "1 file")])
    assert [(result.check_name, result.severity.value) for result in results] == [
        ("row_count_is_usual", "ERROR"),
        ("input_is_present", "ERROR"),
    ]
    assert isinstance(failure, RefusedError) and failure.description == "row_count_is_usual: 50 rows"
    assert failure.allow_retries is False


def test_a_failure_that_may_pass_is_told_apart_from_one_that_stays(tiny: TinyProject) -> None:
    denied = Finding("input_is_complete", False, "a cannot be read", transient=True)
    assert isinstance(reported(tiny, [denied])[1], UnavailableError)
    empty = Finding("input_is_present", False, "no files")
    assert isinstance(reported(tiny, [denied, empty])[1], RefusedError)


def test_what_guards_a_promise_cannot_be_switched_off(tiny: TinyProject) -> None:
    settings(tiny, rows_are_conserved={"blocking": False}, days_are_current={"blocking": True})
    with pytest.raises(ValueError, match="2 errors") as error:
        _ = tiny.pipeline
    assert "checks.rows_are_conserved.blocking: False: " in str(error.value)
    assert "expected true: an invariant always blocks" in str(error.value)
    assert "expected false: it cannot stop the day" in str(error.value)
