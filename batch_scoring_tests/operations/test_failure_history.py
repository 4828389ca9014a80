"""What the state knows of failed runs: how many, why, and which days have recovered since."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from batch_scoring.operations.failure_history import FailureStatistics, statistics
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring.storage.state import (
    DayInput,
    ExportReceipt,
    FailureRecord,
    PublishedDay,
    PublishedPart,
    State,
    StepName,
)
from batch_scoring_tests.exports import NAME, break_sink, mend_sink, run_exports, scored, with_export
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject

NOON = datetime(2024, 3, 5, 12, tzinfo=UTC)


@pytest.fixture
def state(tmp_path: Any) -> State:  # noqa: ANN401
    return State(LocalFolder(str(tmp_path)))


def at(hours: float) -> datetime:
    """A time after noon."""
    return NOON + timedelta(hours=hours)


def fail(state: State, run_id: str, hours: float, failure: str = "storage", **fields: object) -> None:
    """A run that has failed at a time."""
    known = {"day": DAY, "step": "predictions", "message": "no answer"} | fields
    record = {"run_id": run_id, "failure_class": failure, "at": at(hours), **known}
    state.put_failure(FailureRecord.model_validate(record))


def pin(state: State, hours: float, fingerprint: str = "f") -> None:
    """A run that has pinned the day's input at a time."""
    state.put_day_input(DayInput(day=DAY, fingerprint=fingerprint, files=(), run_id="r", pinned_at=at(hours)))


def publish(state: State, hours: float, step: StepName = "predictions", **fields: Any) -> None:  # noqa: ANN401
    """A step that has published the day at a time."""
    part = PublishedPart(transaction=3, version=3, files=("a",), created=1)
    known = {"pipeline": "p", "day": DAY, "run_id": "r", "fingerprint": "f", "code": "c", "shards": (), "table": part}
    state.put_published_day(PublishedDay(step=step, finished_at=at(hours), **{**known, **fields}))


def export(state: State, hours: float, transaction: int = 3, **fields: Any) -> None:  # noqa: ANN401
    """An export that has delivered a version of the day at a time."""
    version = {"of": "predictions", "created": 1, "transaction": transaction, "files": ("a",)}
    known = {"pipeline": "p", "day": DAY, "run_id": "r", "settings": "s", "outcome": "exported", "rows": 1}
    times = {"began_at": at(hours), "finished_at": at(hours)}
    receipt = ExportReceipt(export=NAME, **{**version, **known, **times, **fields})
    state.put_receipt(receipt, state.receipt_token(NAME, DAY))


def recovered(state: State) -> set[str]:
    return set(statistics(state, at(-24)).recovered)


def test_failed_runs_are_counted_by_class_the_most_frequent_first(state: State) -> None:
    fail(state, "before", -25)
    for hours, run_id in enumerate(("a", "b", "c")):
        fail(state, run_id, hours, day=NEXT_DAY if run_id == "b" else DAY)
    fail(state, "d", 0, "bad_input")
    publish(state, 1.5)
    found = statistics(state, at(-24))
    assert [(one.failure, one.runs, one.recovered, one.days, one.last) for one in found.by_class] == [
        ("storage", 3, 1, (DAY, NEXT_DAY), at(2)),
        ("bad_input", 1, 1, (DAY,), at(0)),
    ]
    assert found.recovered_ratio == 0.5
    assert [(left.last.day, left.last.run_id, left.runs) for left in found.open_failures] == [
        (DAY, "c", 1),
        (NEXT_DAY, "b", 1),
    ]


def test_a_pipeline_without_failures_has_no_ratio(state: State) -> None:
    found = statistics(state, at(-24))
    assert found == FailureStatistics() and found.recovered_ratio is None
    assert (found.by_class, found.open_failures) == ([], [])


def test_superseded_runs_are_no_failures(state: State) -> None:
    fail(state, "late", 0, "superseded")
    fail(state, "bad", 1, "bad_input")
    found = statistics(state, at(-24))
    assert found.superseded == 1
    assert [failure.run_id for failure in found.failures] == ["bad"]
    assert [one.failure for one in found.by_class] == ["bad_input"]


def test_a_run_about_no_day_neither_recovers_nor_counts_for_the_ratio(state: State) -> None:
    fail(state, "report", 0, day="", step="report")
    found = statistics(state, at(-24))
    assert (len(found.failures), found.recovered_ratio, found.open_failures) == (1, None, [])
    fail(state, "a", 1)
    publish(state, 2)
    assert statistics(state, at(-24)).recovered_ratio == 1.0


def test_a_run_that_fails_after_it_has_published_its_day_has_recovered(state: State) -> None:
    # killed after the commit, or in the drift step: its retry finds the day scored, and publishes nothing
    pin(state, -1)
    publish(state, 0, run_id="killed")
    fail(state, "killed", 1, "lost", step="predictions")
    assert recovered(state) == {"killed"}
    fail(state, "other", 2)
    assert recovered(state) == {"killed"}, "another run of the day still has to be made good"


def test_a_run_that_fails_before_its_decisions_has_not_recovered(state: State) -> None:
    pin(state, -2)
    publish(state, -1, "decisions", run_id="earlier")
    publish(state, 0, run_id="killed", followed_by=("decisions",))
    fail(state, "killed", 1, "lost", step="decisions")
    assert recovered(state) == set()


def test_a_day_recovers_once_it_is_published(state: State) -> None:
    pin(state, -1)
    publish(state, -2)
    fail(state, "first", 0)
    assert recovered(state) == set(), "published before"
    publish(state, 1)
    fail(state, "second", 2)
    assert recovered(state) == {"first"}


def test_a_day_that_was_up_to_date_recovers_once_a_run_has_found_it_so(state: State) -> None:
    """Such a run pins the input anew, and publishes nothing."""
    publish(state, -2)
    pin(state, -2)
    fail(state, "killed after it had published", 0)
    assert recovered(state) == set()
    pin(state, 1, "other files")
    assert recovered(state) == set(), "they are not scored yet"
    pin(state, 2)
    assert recovered(state) == {"killed after it had published"}
    fail(state, "that very run", 3)
    assert recovered(state) == set()


def test_a_dead_run_that_is_noticed_after_another_has_published_the_day_has_recovered(state: State) -> None:
    pin(state, -1)
    publish(state, 0, run_id="other")
    fail(state, "dead since long ago", 5, "lost", began=at(-2))
    assert recovered(state) == {"dead since long ago"}
    fail(state, "began later", 6, "lost", began=at(1))
    assert recovered(state) == {"dead since long ago"}
    pin(state, 7, "other files")
    assert recovered(state) == set()


def test_with_decisions_a_day_recovers_once_it_is_decided(state: State) -> None:
    publish(state, 1, followed_by=("decisions",))
    fail(state, "at decisions", 2, step="decisions")
    fail(state, "again", 4, step="decisions")
    assert recovered(state) == set()
    publish(state, 3, "decisions", fingerprint="of older files")
    assert recovered(state) == set()
    publish(state, 3, "decisions")
    assert recovered(state) == {"at decisions"}


def test_an_export_recovers_once_its_sink_shows_what_is_published(state: State) -> None:
    publish(state, -3)
    fail(state, "export", 0, "sink", step="export_list", export=NAME)
    publish(state, 1, table=PublishedPart(transaction=4, version=4, files=("b",), created=1))
    assert recovered(state) == set(), "scoring the day does not deliver it"
    export(state, -1)
    assert recovered(state) == set(), "an older version, before"
    export(state, 2)
    assert recovered(state) == {"export"}
    export(state, -1, 4, files=("b",))
    assert recovered(state) == {"export"}, "the newest version, delivered before"
    export(state, -1, 4, files=("b",), gives_way_to="decisions")
    assert recovered(state) == set()


def test_a_failed_export_that_its_sensor_repeats_has_recovered(tiny: TinyProject) -> None:
    with_export(tiny)
    scored(tiny)
    break_sink(tiny)
    with dg.DagsterInstance.ephemeral() as instance:
        assert not run_exports(tiny, instance).success
    (left,) = statistics(tiny.state, NOON).open_failures
    assert (left.last.day, left.last.export, left.last.failure_class) == (DAY, NAME, "sink")
    mend_sink(tiny)
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_exports(tiny, instance).success
    found = statistics(tiny.state, NOON)
    assert (len(found.failures), found.recovered_ratio, found.open_failures) == (1, 1.0, [])
