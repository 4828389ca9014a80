"""Whatever happens to the bucket, the daemon and the records, no file is lost; without any one of the rules it is."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import freshness
from batch_scoring.operations.automation import landing_scan, planner, sqs
from batch_scoring.operations.automation.planner import Bounds, DayRequest
from batch_scoring.operations.retry_policy import Pauses
from batch_scoring.storage.state import State
from batch_scoring_tests.simulation import bucket
from batch_scoring_tests.simulation.bucket import Figures, play, play_all, summary

HISTORIES, UNTIL_BROKEN = 100, 120

Patches = list[tuple[object, str, Any]]


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_no_history_of_a_bucket_loses_a_file_or_runs_a_day_in_vain(capsys: pytest.CaptureFixture[str]) -> None:
    total = Figures()
    for world in play_all(range(HISTORIES)):
        total.add(world.figures)
    with capsys.disabled():
        print(f"\n{summary(total)}")
    assert (total.wrong_days, total.needless) == ([], [])
    # it is a history of troubles
    assert total.failed > HISTORIES and total.superseded > HISTORIES and total.overtaken and total.twice


def test_a_history_is_the_same_whenever_it_is_played() -> None:
    assert [play(seed).trace for seed in range(4)] == [play(seed).trace for seed in range(4)]


_REQUEST, _BOUNDS, _PLAN = planner._request, landing_scan.bounds_of, planner.plan


def _settled_by_raw_input() -> Patches:
    def fingerprints(pipeline: Pipeline, days: list[str]) -> dict[str, str]:
        return {pinned.day: pinned.fingerprint for pinned in State(pipeline.output).day_inputs(days)}

    return [(freshness, "fingerprints", fingerprints)]


def _settled_by_predictions() -> Patches:
    return [(freshness, "WRITING_STEPS", ("predictions",))]


def _settled_whatever_the_tables_say() -> Patches:
    class Anything:
        def __eq__(self, other: object) -> bool:
            return True

    return [(freshness, "_transactions", lambda _pipeline, **_: lambda _part: Anything())]


def _key_of_files_alone() -> Patches:
    def request(day: Any, *arguments: Any) -> DayRequest:
        made = _REQUEST(day, *arguments)
        return replace(made, run_key=f"{made.day}-{made.fingerprint}")

    return [(planner, "_request", request)]


def _bounded(**limits: Any) -> Patches:
    def bounds_of(*arguments: Any) -> Bounds:
        return replace(_BOUNDS(*arguments), **limits)

    return [(landing_scan, "bounds_of", bounds_of)]


def _fingerprint_of_names() -> Patches:
    def is_settled(day: Any) -> bool:
        pinned = State(bucket.PIPELINE.output).day_inputs([day.day])
        return day.scored_from is not None and [{f.path for f in p.files} for p in pinned] == [
            {f.path for f in day.files}
        ]

    return [(planner.Landed, "is_up_to_date", property(is_settled))]


def _files_later_than_the_last() -> Patches:
    """As a sensor with a cursor of modification times does."""
    newest: dict[str, float] = {}

    def is_settled(day: Any) -> bool:
        latest = max((file.modified.timestamp() for file in day.files), default=0.0)
        if latest <= newest.get(day.day, 0.0):
            return True
        newest[day.day] = latest
        return False

    return [(planner.Landed, "is_up_to_date", property(is_settled))]


def _never_swept() -> Patches:
    return [(sqs, "SWEEP", 1e12), (sqs, "landing_scan", _Unswept())]


class _Unswept:
    today = staticmethod(landing_scan.today)

    @staticmethod
    def tick(*arguments: Any, **options: Any) -> landing_scan.Tick:
        return landing_scan.tick(*arguments, **(options | {"sweeps": False}))


TROUBLED = {"days": 25, "failures": 0.5}
"""Habits of a history where A -> B -> A meets failed runs."""

RULES: dict[str, tuple[Callable[[], Patches], dict[str, Any]]] = {
    "a day is settled by what was published, not by raw_input": (_settled_by_raw_input, {}),
    "a day is settled by both accounts": (_settled_by_predictions, TROUBLED),
    "a day is settled as the tables' transactions say": (_settled_whatever_the_tables_say, TROUBLED),
    "the run key names the run before": (_key_of_files_alone, {}),
    "a run is in flight until its maximum runtime": (lambda: _bounded(max_runtime=1e12), {}),
    "older days come in turn": (lambda: _bounded(older_days=0), {"door": "uploads", "days": 25}),
    "failed runs are tried again": (lambda: _bounded(pauses=Pauses(retries=0)), {}),
    "the version tokens are compared": (_fingerprint_of_names, {}),
    "fingerprints are compared, not times": (_files_later_than_the_last, {}),
    "the whole landing folder is looked at now and then": (_never_swept, {"door": "events"}),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.slow
def test_a_file_is_lost_without_the_rule(rule: str) -> None:
    without, habits = RULES[rule]
    for seed in range(UNTIL_BROKEN):
        world = play(seed, bucket.Habits(**habits) if habits else None, without())
        if world.figures.wrong_days:
            return
    pytest.fail(f"no file was lost in {UNTIL_BROKEN} histories")
