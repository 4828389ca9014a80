"""Which day of an export is run next."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.operations.automation.export_planner import LONGEST_PAUSE, Limits, plan
from batch_scoring.operations.export_runs import ExportRun
from batch_scoring.operations.retry_policy import Pauses

NOW = 1_000_000.0
LIMITS = Limits(Pauses(retries=2, first=300.0), max_runtime=3600.0, loaded_at=0.0)
DAYS = {"2024-03-03": "v3", "2024-03-04": "v4"}


def failed(number: int, day: str = "2024-03-04", ago: float = 10_000.0) -> ExportRun:
    return ExportRun(f"run{number:05d}", day, "failed", NOW - ago, "v4", "sink")


def asked(*runs: ExportRun, days: dict[str, str] = DAYS, limits: Limits = LIMITS) -> str:
    request, reason = plan("list", days, runs, NOW, limits)
    assert (request is None) == bool(reason)
    return f"{request.day} attempt {request.attempt}" if request else reason


def test_the_newest_day_comes_first() -> None:
    assert asked() == "2024-03-04 attempt 1"
    assert asked(days={"2024-03-03": "v3"}) == "2024-03-03 attempt 1"


@pytest.mark.parametrize(
    ("status", "ago", "waits"),
    [
        ("queued", 9e5, True),
        ("started", 3599, True),
        ("started", 3601, False),
        ("created", 59, True),
        ("created", 61, False),
    ],
)
def test_an_export_has_one_run_at_a_time(status: str, ago: float, waits: bool) -> None:
    run = replace(failed(1, "2024-03-01", ago), status=status)  # type: ignore[arg-type]
    assert (asked(run) == f"run run00001 of 2024-03-01 is {status}") == waits


def test_after_failures_the_export_pauses_whatever_the_day_and_tries_on() -> None:
    assert asked(failed(1, ago=100)).startswith("failed 1 times in a row, tried again in ")
    assert asked(failed(1, "2024-03-01", ago=100)).startswith("failed 1 times in a row")
    assert asked(failed(1, ago=400)) == "2024-03-04 attempt 2"
    row = [failed(number, ago=2000 + number) for number in range(50)]
    assert asked(*row).startswith("failed 50 times in a row")
    assert asked(*[replace(run, since=NOW - LONGEST_PAUSE - 1) for run in row]) == "2024-03-04 attempt 51"
    assert asked(replace(failed(1), status="succeeded", since=NOW), *row) == "2024-03-04 attempt 1"


def test_a_clock_that_was_set_back_keeps_no_export_waiting() -> None:
    assert asked(failed(1, ago=-1e6)) == "2024-03-04 attempt 2"


def test_a_refused_day_waits_for_a_change_and_others_go_on() -> None:
    refused = replace(failed(1), status="refused", failure="bad_sink")
    assert asked(refused) == "2024-03-03 attempt 2"
    only = {"2024-03-04": "v4"}
    assert asked(refused, days=only).startswith("refused: 2024-03-04 by run run00001; waits for another version")
    assert asked(refused, days={"2024-03-04": "v5"}) == "2024-03-04 attempt 2"
    assert asked(refused, days=only, limits=replace(LIMITS, loaded_at=NOW)) == "2024-03-04 attempt 2"
    assert asked(replace(refused, version="")) == "2024-03-04 attempt 2", "a run by hand says nothing about a version"
    assert asked(failed(2, ago=5_000), refused, days=only) == "2024-03-04 attempt 3", "its last run was not refused"


def test_after_several_refused_days_older_ones_wait_and_newer_or_corrected_ones_do_not() -> None:
    days = {f"2024-03-{number:02}": f"v{number}" for number in range(1, 31)}
    runs: list[ExportRun] = []
    while (request := plan("list", days, runs, NOW, LIMITS)[0]) and len(runs) < 30:
        refused = ExportRun(f"run{len(runs):05}", request.day, "refused", NOW, days[request.day], "bad_sink")
        runs.insert(0, refused)
    assert [run.day for run in runs] == ["2024-03-28", "2024-03-29", "2024-03-30"]
    assert asked(*runs, days=days).startswith("refused: 2024-03-28 by run run00002, 2024-03-29 by ")
    assert asked(*runs, days={"2024-03-01": "v1"}).startswith("refused: newer days; waits for")
    assert asked(*runs, days=days | {"2024-03-31": "v31"}) == "2024-03-31 attempt 4"
    assert asked(*runs, days=days | {"2024-03-29": "other"}) == "2024-03-29 attempt 4"
    assert asked(replace(runs[0], id="later", day="2024-03-31", status="succeeded"), *runs, days=days) == (
        "2024-03-27 attempt 1"
    )
    assert asked(*runs, days=days, limits=replace(LIMITS, loaded_at=NOW)) == "2024-03-30 attempt 4"


def test_a_day_that_fails_by_itself_does_not_keep_older_days_waiting() -> None:
    damaged = replace(failed(1), failure="storage")
    assert asked(damaged) == "2024-03-03 attempt 2"
    assert asked(damaged, days={"2024-03-04": "v4"}) == "2024-03-04 attempt 2", "alone it is tried again"
    assert asked(damaged, days=DAYS | {"2024-03-04": "v5"}) == "2024-03-04 attempt 2", "another version begins anew"
    assert asked(failed(2), damaged) == "2024-03-03 attempt 3"
    both = [replace(failed(2, "2024-03-03"), failure="storage", version="v3"), damaged]
    assert asked(*both) == "2024-03-04 attempt 3", "of those that failed as often, the newest"
    succeeded = replace(failed(3, "2024-03-02"), status="succeeded", version="v2", failure=None)
    assert asked(succeeded, damaged) == "2024-03-03 attempt 1", "a success of another day says nothing about this one"
    assert asked(failed(1)) == "2024-03-04 attempt 2", "the sink was down: the newest day"


def test_a_run_key_is_never_used_twice() -> None:
    """Dagster never runs the same key again; a run that was created and not launched keeps its key."""
    keys = set()
    for runs in ([], [failed(1)], [failed(2), failed(1)]):
        request, _ = plan("list", DAYS, runs, NOW, LIMITS)
        assert request
        keys.add(request.run_key)
    assert len(keys) == 3
    created = replace(failed(3, ago=100), status="created")
    request, _ = plan("list", DAYS, [created, failed(2), failed(1)], NOW, LIMITS)
    assert request and request.run_key in keys


STATUSES = st.sampled_from(["created", "queued", "started", "succeeded", "failed", "refused"])
RUNS = st.lists(
    st.builds(
        lambda status, day, ago: ExportRun(f"{status}{ago}", day, status, NOW - ago, f"v{day[-1]}", None),
        STATUSES,
        st.sampled_from([f"2024-03-0{number}" for number in range(1, 6)]),
        st.integers(0, 100_000),
    ),
    max_size=8,
)


@given(runs=RUNS)
def test_a_day_that_is_behind_is_asked_for_or_there_is_a_reason(runs: list[ExportRun]) -> None:
    request, reason = plan("list", DAYS, runs, NOW, LIMITS)
    assert (request is None) == bool(reason)
    if request:
        assert request.day in DAYS
        assert not any(run.status == "queued" for run in runs)
