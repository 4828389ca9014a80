"""The schedules as Dagster evaluates them."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.definitions.run_request import RunRequest

from batch_scoring_tests.tiny import TinyProject


def instant(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


@pytest.fixture(scope="module")
def one_tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    return TinyProject(tmp_path_factory.mktemp("scheduled"))


@pytest.fixture
def tiny(one_tiny: TinyProject) -> Iterator[TinyProject]:
    """One project for all tests of this module; its spec is put back after each."""
    yield one_tiny
    one_tiny.spec |= {"partitions": {"start": "2024-03-01"}, "schedule": {}}
    one_tiny.write_spec()


def tick(tiny: TinyProject, scheduled: datetime, what: str = "score", **spec: Any) -> list[RunRequest] | str:  # noqa: ANN401  (YAML)
    """The requests of a tick of a schedule, their days accepted by Dagster; or why there are none."""
    tiny.spec |= spec
    tiny.write_spec()
    defs = tiny.definitions
    context = dg.build_schedule_context(
        scheduled_execution_time=scheduled, repository_def=defs.get_repository_def(), instance=None
    )
    result = defs.resolve_schedule_def(f"{what}_{tiny.name}_on_schedule").evaluate_tick(context)
    return list(result.run_requests or []) or result.skip_message or ""


def test_a_tick_asks_for_a_run_a_day_the_newest_with_priority(tiny: TinyProject) -> None:
    requests = tick(tiny, instant("2024-03-04T06:00"), schedule={"cron": "0 6 * * 1-5"})
    assert isinstance(requests, list)
    assert [
        (request.partition_key, request.tags["dagster/partition"], request.tags["dagster/priority"])
        for request in requests
    ] == [("2024-03-03",) * 2 + ("10",), ("2024-03-01",) * 2 + ("5",), ("2024-03-02",) * 2 + ("5",)]
    assert {request.tags["batch_scoring/why"] for request in requests} == {"scheduled"}
    assert [request.run_key for request in requests] == [
        f"2024-03-0{day} at 2024-03-04T06:00:00+00:00" for day in (3, 1, 2)
    ]


def test_ticks_of_one_date_have_keys_of_their_own_also_in_the_hour_that_comes_twice(tiny: TinyProject) -> None:
    zone = ZoneInfo("America/New_York")
    hours = [datetime(2024, 11, 3, 1, 30, tzinfo=zone, fold=fold) for fold in (0, 1)]
    partitions = {"start": "2024-03-01", "timezone": "America/New_York"}
    keys = []
    for hour in hours:
        requests = tick(tiny, hour, schedule={"cron": "30 * * * *"}, partitions=partitions)
        assert isinstance(requests, list)
        keys += [(request.partition_key, request.run_key) for request in requests]
    assert [day for day, _ in keys] == ["2024-11-02", "2024-11-02"]
    assert len({key for _, key in keys}) == 2


@pytest.mark.parametrize(
    ("zone", "scheduled", "today"),
    [
        ("UTC", "2024-03-04T00:00", "2024-03-04"),
        ("America/New_York", "2024-03-10T03:00", "2024-03-10"),
        ("America/New_York", "2024-11-03T00:00", "2024-11-03"),
        ("America/Sao_Paulo", "2017-10-15T01:00", "2017-10-15"),  # its first minute
        ("Australia/Lord_Howe", "2024-04-07T00:00", "2024-04-07"),
        ("Pacific/Kiritimati", "2024-03-04T00:00", "2024-03-04"),
    ],
)
def test_dagster_knows_the_day_that_has_just_begun(tiny: TinyProject, zone: str, scheduled: str, today: str) -> None:
    """It judges a tick's days by the time of the tick; a day that it does not know would fail the whole tick."""
    requests = tick(
        tiny,
        instant(scheduled, zone),
        partitions={"start": "2017-01-01", "timezone": zone},
        schedule={"days_back": 0, "cron": "*/5 * * * *"},
    )
    assert isinstance(requests, list)
    assert [request.tags["dagster/partition"] for request in requests] == [today]


def test_the_zone_of_the_cron_is_the_specs_or_that_of_the_days(tiny: TinyProject) -> None:
    def zones() -> tuple[str | None, str | None]:
        tiny.write_spec()
        defs = tiny.definitions
        score, report = (
            defs.resolve_schedule_def(f"{what}_{tiny.name}_on_schedule").execution_timezone
            for what in ("score", "report")
        )
        return score, report

    tiny.spec["partitions"] = {"start": "2024-03-01", "timezone": "America/New_York"}
    assert zones() == ("America/New_York", "America/New_York")
    tiny.spec["schedule"] = {"timezone": "Europe/Berlin"}
    assert zones() == ("Europe/Berlin", "America/New_York")
    weekly = {"timezone": "Europe/Berlin", "cron": "0 5 * * 2"}  # late on Monday in New York
    requests = tick(tiny, instant("2024-07-02T05:00", "Europe/Berlin"), schedule=weekly)
    assert isinstance(requests, list)
    assert [request.partition_key for request in requests] == [f"2024-06-{day}" for day in (30, *range(24, 30))]


def test_a_tick_before_the_pipelines_first_day_is_over_is_skipped_and_says_why(tiny: TinyProject) -> None:
    assert tick(tiny, instant("2024-03-01T06:00")) == (
        "2024-02-29 is before the pipeline's first day, 2024-03-01 (partitions.start in the spec)"
    )
    assert tick(tiny, instant("2024-03-01T07:45"), "report") == (
        "2024-02 is before the pipeline's first day, 2024-03-01 (partitions.start in the spec)"
    )


def test_the_page_of_a_month_within_which_the_pipeline_starts_is_drawn(tiny: TinyProject) -> None:
    (request,) = tick(tiny, instant("2024-03-16T07:45"), "report", partitions={"start": "2024-03-15"})
    assert isinstance(request, RunRequest) and request.tags["dagster/partition"] == "2024-03-01"


def test_the_spec_says_whether_it_runs_and_the_page_waits_for_somebody(tiny: TinyProject) -> None:
    found = []
    for status in ("stopped", "running"):
        tiny.spec["schedule"] = {"default_status": status}
        tiny.write_spec()
        defs = tiny.definitions
        found += [
            defs.resolve_schedule_def(f"{what}_{tiny.name}_on_schedule").default_status for what in ("score", "report")
        ]
    stopped, running = dg.DefaultScheduleStatus.STOPPED, dg.DefaultScheduleStatus.RUNNING
    assert found == [stopped, stopped, running, stopped]


def test_the_description_says_when_and_for_which_days(tiny: TinyProject) -> None:
    tiny.spec["schedule"] = {"timezone": "Europe/Berlin", "days_back": 2}
    tiny.write_spec()
    assert tiny.definitions.resolve_schedule_def(f"score_{tiny.name}_on_schedule").description == (
        "Every day at 06:00 (Europe/Berlin): scores the day 2 days before (UTC) and all days since the tick before it, "
        "one run per day, whatever has landed."
    )


def test_the_runs_that_are_asked_for_score_the_day_and_draw_its_month(tiny: TinyProject) -> None:
    tiny.land("2024-03-31", tiny.rows(64))
    defs = tiny.definitions
    for what, scheduled, key in (("score", "06:00", "2024-03-31"), ("report", "07:45", "2024-03-01")):
        requests = tick(tiny, instant(f"2024-04-01T{scheduled}"), what)
        assert isinstance(requests, list)
        (request,) = requests
        assert request.partition_key == key
        result = defs.resolve_job_def(f"{what}_{tiny.name}").execute_in_process(
            partition_key=request.partition_key,
            tags={name: value for name, value in request.tags.items() if not name.startswith("dagster/")},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        assert result.success
    assert tiny.read("2024-03-31").num_rows == 64
    assert "2024-03-31" in Path(tiny.pipeline.output.uri, "reports/month=2024-03.html").read_text()
