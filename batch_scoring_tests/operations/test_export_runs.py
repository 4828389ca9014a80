"""Runs of exports: what became of each export, and which failures are worth an alert."""

from collections.abc import Iterator

import dagster as dg
import pytest

from batch_scoring.operations import export_runs
from batch_scoring.operations.export_runs import ExportRun, is_worth_an_alert
from batch_scoring.operations.retry_policy import Pauses
from batch_scoring.operations.run_history import STOPPED
from batch_scoring_tests.exports import break_sink, refusing, run_exports, scored, with_export
from batch_scoring_tests.tiny import DAY, TinyProject


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def test_a_run_of_several_exports_counts_for_each_by_its_own_step(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    with_export(with_export(tiny), "other", path="elsewhere/other_{day}.csv")
    scored(tiny)
    break_sink(tiny)
    run_exports(tiny, instance, tags={export_runs.VERSION: "v"})
    runs = export_runs.of_pipeline(instance, tiny.pipeline)
    (broken,), (sound,) = runs["list"], runs["other"]
    assert (broken.status, broken.failure, broken.day, broken.version) == ("failed", "sink", DAY, "v")
    assert (sound.status, sound.failure) == ("succeeded", None)


def test_newest_first_and_only_of_their_export(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    with_export(with_export(tiny), "other")
    scored(tiny)
    ids = [run_exports(tiny, instance, name).run_id for name in ("list", "other", "list")]
    runs = export_runs.of_pipeline(instance, tiny.pipeline)
    assert [run.id for run in runs["list"]] == [ids[2], ids[0]]
    assert [run.id for run in runs["other"]] == [ids[1]]


def test_a_refusal_and_a_stopped_command(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    scored(refusing(tiny))
    refused = run_exports(tiny, instance).run_id
    stopped = run_exports(tiny, instance).run_id
    instance.add_run_tags(stopped, {STOPPED: stopped})
    assert [(run.id, run.status) for run in export_runs.of_pipeline(instance, tiny.pipeline)["list"]] == [
        (refused, "refused")
    ]


def told(*runs: str, tries: int = 3) -> list[int]:
    """Numbers of the runs that are told, the first is 1: each is `<f|r|s> <day>`, in the order of time."""
    statuses = {"f": "failed", "r": "refused", "s": "succeeded"}
    history = [
        ExportRun(str(number), f"2024-03-0{run[2]}", statuses[run[0]], float(number))  # type: ignore[arg-type]
        for number, run in enumerate(runs, 1)
    ]
    return [
        number
        for number in range(1, len(runs) + 1)
        if is_worth_an_alert(str(number), history[::-1], Pauses(retries=tries - 1))
    ]


def test_the_last_attempt_is_told_once_until_an_export_succeeds() -> None:
    assert told("f 4", "f 4") == []
    assert told("f 4", "f 4", "f 4", "f 4", "f 4") == [3]
    assert told("f 4", "f 4", "s 4", "f 4", "f 4", "f 4") == [6]
    assert told("f 4", tries=1) == [1]


def test_a_refusal_is_told_at_once_and_other_days_that_are_refused_after_it_are_not() -> None:
    assert told("r 4", "r 3", "r 2") == [1]
    assert told("r 4", "s 3", "r 2") == [1, 3]


def test_a_newer_day_is_told_again_while_the_export_keeps_failing() -> None:
    assert told("f 3", "f 3", "f 3", "f 4", "f 4", "f 5") == [3, 4, 6]
    assert told("r 3", "r 4", "r 4") == [1, 2]
