"""The planner: what it decides on a day, and what it remembers. Whole histories are in simulation/test_bucket.py."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.ingest.landing_files import fingerprint
from batch_scoring.operations.automation.planner import (
    LATE,
    NOW,
    Bounds,
    Landed,
    TickPlan,
    TickState,
    UnexpectedObject,
    days_to_examine,
    is_retried,
    plan,
    sort_names,
)
from batch_scoring.operations.run_history import DayRun
from batch_scoring.storage.folders.folder import FileVersion

TODAY = date(2024, 3, 10)
NOON = datetime(2024, 3, 10, 12, tzinfo=UTC).timestamp()
DAY = "2024-03-04"
FILES = (FileVersion(f"dt={DAY}/a.parquet", "etag1", 10, datetime(2024, 3, 10, 11, tzinfo=UTC)),)
NAME = fingerprint(FILES)


def landed(day: str = DAY, files: tuple[FileVersion, ...] = FILES, **more: Any) -> Landed:  # noqa: ANN401
    return Landed(day, files, **more)


def run(number: int, status: Any = "failed", ended: float = NOON - 3600, **more: Any) -> DayRun:  # noqa: ANN401
    return DayRun(
        **({"id": f"run{number:05}", "status": status, "since": ended, "fingerprint": NAME, "code": "c"} | more)
    )


def decide(
    *days: Landed,
    runs: list[DayRun] | None = None,
    now: float = NOON,
    bounds: Bounds | None = None,
    memory: TickState | None = None,
    strangers: list[UnexpectedObject] | None = None,
    turn: list[str] | None = None,
) -> TickPlan:
    return plan(
        days,
        turn or [],
        strangers or [],
        [],
        {DAY: runs or []},
        "c",
        now,
        TODAY,
        bounds or Bounds(),
        memory or TickState(),
    )


def asked(made: TickPlan) -> list[str]:
    return [request.day for request in made.requests]


# days whose decisions look back


def backlog(count: int = 4) -> list[Landed]:
    """Days that have landed and are not scored, the newest first."""
    return [landed(str(date.fromisoformat(DAY) + timedelta(back))) for back in range(count - 1, -1, -1)]


def test_a_day_that_looks_back_waits_for_the_days_before_that_are_run() -> None:
    last, third, second, first = (day.day for day in backlog())
    made = decide(*backlog(), bounds=Bounds(look_back=2))
    assert asked(made) == [first]
    assert made.waiting == {
        last: f"its decisions look back at {second}, which is decided first",
        third: f"its decisions look back at {first}, which is decided first",
        second: f"its decisions look back at {first}, which is decided first",
    }
    assert asked(decide(*backlog())) == [last, third, second, first]


@pytest.mark.parametrize(
    ("status", "waits"), [("started", True), ("queued", True), ("refused", False), ("failed", False)]
)
def test_a_day_before_is_waited_for_while_it_runs_and_not_after_it_failed(status: str, waits: bool) -> None:
    runs = [run(number, status, NOON - 60) for number in range(3 if status == "failed" else 1)]
    second = backlog(2)[0].day
    made = decide(*backlog(2), runs=runs, bounds=Bounds(look_back=28))
    assert asked(made) == ([] if waits else [second])


# a day


def test_a_day_that_has_landed_and_is_not_scored_is_asked_for() -> None:
    (request,) = decide(landed()).requests
    assert (request.day, request.fingerprint, request.attempt, request.priority) == (DAY, NAME, 1, LATE)
    assert request.run_key == f"{DAY}-{NAME[:16]}-first" and request.why == "it has landed and is not scored"


def test_a_day_that_is_settled_with_its_files_is_not() -> None:
    made = decide(landed(scored_from=NAME))
    assert (made.requests, made.reports, made.waiting) == ((), (), {})


def test_a_day_whose_files_are_others_than_those_it_is_settled_with_is_asked_for() -> None:
    (request,) = decide(landed(scored_from="others")).requests
    assert request.why == "its files have changed since it was scored"


@pytest.mark.parametrize(("back", "priority"), [(0, NOW), (1, NOW), (2, LATE)])
def test_today_and_yesterday_go_first(back: int, priority: int) -> None:
    (request,) = decide(landed(str(TODAY - timedelta(days=back)))).requests
    assert request.priority == priority


@pytest.mark.parametrize("settled", ["with all", None])
def test_deleted_input_of_a_settled_day_is_told_once_and_not_acted_on(settled: str | None) -> None:
    made = decide(landed(files=(), scored_from=settled))
    assert made.requests == () and len(made.reports) == (settled is not None)
    again = decide(landed(files=(), scored_from=settled), memory=made.memory)
    assert again.reports == () and again.requests == ()


def test_a_settled_day_that_lost_some_files_is_told_for_each_rest() -> None:
    made = decide(landed(scored_from="with more", has_lost=True))
    assert made.requests == () and "some of its files were deleted" in made.reports[0].text
    less = (replace(FILES[0], token="etag0"),)
    again = decide(landed(files=less, scored_from="with more", has_lost=True), memory=made.memory)
    assert len(again.reports) == 1


def test_a_day_that_waits_for_its_marker_is_not_asked_for() -> None:
    made = decide(landed(waits_for="there is no _SUCCESS"))
    assert made.requests == () and made.waiting == {DAY: "there is no _SUCCESS"}


@pytest.mark.parametrize(("hours", "is_run"), [(23, False), (25, True), (8 * 24, False)])
def test_a_day_that_has_waited_for_a_day_is_run_once_so_that_its_failure_tells_people(hours: int, is_run: bool) -> None:
    file = replace(FILES[0], modified=datetime.fromtimestamp(NOON - hours * 3600, UTC))
    day = landed(files=(file,), waits_for="there is no _SUCCESS")
    assert bool(decide(day).requests) == is_run
    told = run(1, "refused", fingerprint=f"{day.fingerprint} incomplete")
    assert decide(day, runs=[told]).requests == ()
    assert asked(decide(landed(files=(file,)), runs=[told])) == [DAY], "it is complete now"


def test_a_day_that_cannot_be_listed_is_told_once_and_holds_up_nobody() -> None:
    denied = Landed("2024-03-05", (), denied="access denied", scored_from="x")
    made = decide(denied, landed(), turn=["2024-03-05", DAY])
    assert asked(made) == [DAY] and made.memory.older_than == DAY
    assert [report.text for report in made.reports] == ["2024-03-05: its files cannot be listed: access denied"]
    assert decide(denied, memory=made.memory).reports == ()


def test_a_day_whose_files_are_archived_in_time_is_not_told() -> None:
    old = str(TODAY - timedelta(days=31))
    assert decide(landed(old, files=(), scored_from="x")).reports == ()


def test_a_day_that_lost_files_again_after_it_was_right_is_told_again() -> None:
    lost = landed(scored_from="with more", has_lost=True)
    memory = decide(lost).memory
    memory = decide(landed(scored_from=NAME), memory=memory).memory
    assert len(decide(lost, memory=memory).reports) == 1


@pytest.mark.parametrize("before", [[run(1, "refused")], [run(n) for n in (3, 2, 1)]], ids=["refused", "given up"])
def test_a_named_day_that_nobody_runs_again_is_forgotten(before: list[DayRun]) -> None:
    memory = TickState(hinted=[DAY], seen={DAY: ("f", NOON)})
    after = decide(landed(), runs=before, memory=memory).memory
    assert (after.hinted, after.seen) == ([], {})
    failed_once = decide(landed(), runs=[run(1, ended=NOON)], memory=memory).memory
    assert failed_once.hinted == [DAY], "it is run again"


# quiet


def aged(seconds: float) -> Landed:
    return landed(files=(replace(FILES[0], modified=datetime.fromtimestamp(NOON - seconds, UTC)),))


def test_new_files_wait_until_no_more_come() -> None:
    made = decide(aged(20))
    assert made.requests == () and "runs in 40 s" in made.waiting[DAY]
    assert DAY in made.memory.seen
    later = decide(aged(20), memory=made.memory, now=NOON + 41)
    assert asked(later) == [DAY] and later.memory.seen == {}


def test_a_store_whose_clock_is_ahead_delays_a_day_by_the_quiet_time_only() -> None:
    made = decide(aged(-7 * 86400))
    assert made.requests == ()
    assert asked(decide(aged(-7 * 86400), memory=made.memory, now=NOON + 61)) == [DAY]


def test_a_clock_that_jumps_back_delays_a_day_by_the_quiet_time_only() -> None:
    seen = decide(aged(20)).memory
    back = NOON - 86400
    waits = decide(aged(20), memory=seen, now=back)
    assert waits.requests == ()
    assert asked(decide(aged(20), memory=waits.memory, now=back + 61)) == [DAY]


def test_other_files_begin_the_quiet_time_anew() -> None:
    seen = decide(aged(20)).memory
    assert asked(decide(aged(-10), memory=seen, now=NOON + 30)) == []


# runs


@pytest.mark.parametrize("status", ["queued", "started", "created", "to be retried"])
def test_a_day_with_a_run_in_flight_waits(status: str) -> None:
    made = decide(landed(scored_from="others"), runs=[run(1, status, NOON - 30)])
    assert made.requests == () and f"is {status}" in made.waiting[DAY]


@pytest.mark.parametrize(
    ("status", "age", "goes_on"),
    [
        ("queued", 10 * 86400, False),
        ("started", 21_599, False),
        ("started", 21_601, True),
        ("created", 61, True),
        ("to be retried", 121, True),
        ("started", -3600, False),
    ],
)
def test_a_run_is_in_flight_for_so_long(status: str, age: float, goes_on: bool) -> None:
    assert bool(decide(landed(), runs=[run(1, status, NOON - age)]).requests) == goes_on


def test_a_failed_day_is_tried_again_with_growing_pauses_three_times_in_all() -> None:
    pauses = Bounds().pauses
    for tries, least in ((1, 225), (2, 450)):
        failed = [run(n, ended=NOON) for n in range(tries, 0, -1)]
        pause = pauses.after(tries, f"{DAY} {failed[0].id}")
        assert least <= pause <= least * 5 / 3
        assert f"run again in {pause - 1:.0f} s" in decide(landed(), runs=failed, now=NOON + 1).waiting[DAY]
        (request,) = decide(landed(), runs=failed, now=NOON + pause).requests
        assert request.attempt == tries + 1 and request.why.endswith(f"attempt {tries + 1}")
    failed = [run(n) for n in (3, 2, 1)]
    made = decide(landed(), runs=failed, now=NOON + 10 * 86400)
    assert made.requests == () and made.waiting[DAY].startswith("given up after 3 failed runs of these files")


@pytest.mark.parametrize(
    "change",
    [{"fingerprint": "others"}, {"code": "other"}, {"is_whole": False}, {"fingerprint": ""}, {"status": "succeeded"}],
)
def test_a_try_counts_for_its_own_files_and_code_and_since_the_last_success(change: dict[str, Any]) -> None:
    before = [run(4), run(3, **change), run(2), run(1)]
    counted = 3 if "is_whole" in change or change == {"fingerprint": ""} else 1
    made = decide(landed(), runs=before, now=NOON + 86400)
    assert bool(made.requests) == (counted < 3)


def test_a_refused_day_waits_for_other_files_or_other_code() -> None:
    refused = run(1, "refused")
    made = decide(landed(), runs=[refused], now=NOON + 10 * 86400)
    assert made.requests == () and "refused by its checks" in made.waiting[DAY]
    assert decide(landed(), runs=[replace(refused, code="older")]).requests
    assert decide(landed(), runs=[replace(refused, fingerprint="other files")]).requests


def test_a_day_that_was_scored_and_is_not_settled_is_not_run_without_a_pause() -> None:
    well = run(1, "succeeded", NOON)
    assert decide(landed(), runs=[well], now=NOON + 100).requests == ()
    assert asked(decide(landed(), runs=[well], now=NOON + 600)) == [DAY]


def test_a_clock_that_jumped_back_after_a_failure_does_not_hold_the_day_up() -> None:
    assert asked(decide(landed(), runs=[run(1, ended=NOON + 86400)])) == [DAY]


def test_every_run_of_a_day_has_a_key_of_its_own_and_a_created_one_keeps_its() -> None:
    key = decide(landed()).requests[0].run_key
    again = decide(landed(), runs=[run(7, "succeeded", fingerprint="b")]).requests[0].run_key
    dead = decide(landed(), runs=[run(8, "started", NOON - 1e6), run(7, "succeeded")]).requests[0].run_key
    launched_by_nobody = decide(landed(), runs=[run(9, "created", NOON - 100)]).requests[0].run_key
    assert len({key, again, dead}) == 3 and launched_by_nobody == key


def test_a_failure_is_followed_by_another_try_unless_it_was_the_last_or_no_try() -> None:
    failed = [run(3), run(2), run(1)]
    assert [is_retried(one.id, failed, Bounds()) for one in failed] == [False, True, True]
    assert not is_retried("run00001", [run(1, "refused")], Bounds())
    assert not is_retried("run00001", [run(1, is_whole=False)], Bounds())
    assert is_retried("run00001", [run(1, fingerprint="")], Bounds()), "it died before it knew its files"
    assert not is_retried("run00001", [run(1, "refused", fingerprint="")], Bounds())
    assert not is_retried("run00001", [run(1, is_whole=False, fingerprint="")], Bounds())
    assert not is_retried("unknown", failed, Bounds())
    others = [run(n, fingerprint=f"f{n}") for n in (3, 2, 1)]
    assert [is_retried(one.id, others, Bounds()) for one in others] == [False, True, True], "files keep changing"


# names


def test_names_are_days_or_are_told_once_with_the_reason() -> None:
    folders = (
        "dt=2024-03-04",
        "dt=2024-03-09",
        "dt=2024-02-30",
        "2024-03-04",
        "dt=20240304",
        "dt=2023-12-31",
        "dt=2024-03-11",
        "_staging",
        ".cache",
        "dt=",
    )
    days, strangers = sort_names(folders, ("notes.txt", "_SUCCESS"), date(2024, 3, 1), TODAY)
    assert days == ["2024-03-09", "2024-03-04"]
    assert {one.name: one.reason.split(";")[0] for one in strangers} == {
        "dt=2024-02-30/": "not a day",
        "2024-03-04/": "not a day",
        "dt=20240304/": "not a day",
        "dt=/": "not a day",
        "dt=2023-12-31/": "before the pipeline's first day, 2024-03-01",
        "dt=2024-03-11/": "in the future",
        "notes.txt": "a file outside of any day",
    }
    made = decide(strangers=strangers)
    assert len(made.reports) == 7
    assert decide(strangers=strangers, memory=made.memory).reports == ()
    assert len(decide(strangers=strangers[:1], memory=made.memory).memory.strangers) == 1, "what is gone is forgotten"


def test_a_day_to_come_is_told_once_and_not_every_day() -> None:
    (today,), (tomorrow,) = (
        sort_names(["dt=2024-04-01"], (), date(2024, 3, 1), TODAY + timedelta(n))[1] for n in (0, 1)
    )
    assert today == tomorrow


def test_of_very_many_bad_names_some_are_told_once_and_that_there_are_more() -> None:
    names = [f"x{n:05}" for n in range(3000)]
    memory, told = TickState(), []
    for tick in range(10):
        made = decide(strangers=sort_names(names[tick:], (), date(2024, 3, 1), TODAY)[1], memory=memory)
        told += [report.name for report in made.reports]
        memory = made.memory
    assert len(told) < 120 and told.count("…") == 1 and len(memory.strangers) == 101


def test_many_bad_names_are_told_a_few_a_tick() -> None:
    strangers = [UnexpectedObject(f"x{n}/", "not a day") for n in range(50)]
    memory, told = TickState(), []
    for _ in range(4):
        made = decide(strangers=strangers, memory=memory)
        told += [report.name for report in made.reports]
        memory = made.memory
    assert sorted(told) == sorted(one.name for one in strangers)


# which days


@given(
    count=st.integers(0, 60),
    recent=st.integers(1, 9),
    older=st.integers(1, 9),
    named=st.integers(1, 9),
    hinted=st.sets(st.integers(0, 59)),
    begin=st.integers(0, 70),
)
def test_every_day_comes_in_turn_and_the_newest_each_time(
    count: int, recent: int, older: int, named: int, hinted: set[int], begin: int
) -> None:
    days = [str(TODAY - timedelta(days=n)) for n in range(count)]
    bounds = Bounds(recent_days=recent, older_days=older, named_days=named)
    start = str(TODAY - timedelta(days=begin))
    hints = [str(TODAY - timedelta(days=n)) for n in hinted]
    memory = TickState(hinted=hints, older_than=start, named_before=start)
    looked: set[str] = set()
    for _ in range(2 * count // min(older, named) + 3):
        first, turn = days_to_examine(days, memory, bounds)
        assert set(days[:recent]) <= set(first) and len(first) <= recent + named and len(turn) <= older
        assert not set(first) & set(turn) and set(first) <= {*days[:recent], *hints}
        looked |= {*first, *turn}
        in_turn = [day for day in first if day not in days[:recent]]
        memory.older_than = turn[-1] if turn else memory.older_than
        memory.named_before = min(in_turn, default=memory.named_before)
    assert looked == set(days)


def test_requests_are_bounded_and_the_others_come_with_the_next_ticks() -> None:
    days = [str(TODAY - timedelta(days=n)) for n in range(7)]
    made = decide(*(landed(day) for day in days), bounds=Bounds(requests=3), turn=days[2:])
    assert asked(made) == days[:3] and all("per tick" in why for why in made.waiting.values())
    assert made.memory.older_than == days[2], "the turn goes on with the first that was not asked for"


# memory


@pytest.mark.parametrize("cursor", [None, "", "no json", "{}", '{"version": 7}', '{"version": 1, "unknown": 3}', "[]"])
def test_a_cursor_that_cannot_be_read_is_begun_anew(cursor: str | None) -> None:
    assert TickState.read(cursor) == TickState()


def test_a_cursor_is_read_as_it_was_written() -> None:
    memory = TickState(
        older_than=DAY, hinted=[DAY], seen={DAY: ("f", 1.5)}, strangers={"x/": "not a day"}, handled=["r"]
    )
    assert TickState.read(memory.model_dump_json()) == memory
