"""The state's documents are whole or an error; what is missing names the asset to run first."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from batch_scoring.errors import FileChangedError, StateError
from batch_scoring.runtime.usage import Usage
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring.storage.folders.s3 import S3Folder
from batch_scoring.storage.state import (
    MOST_UNPUBLISHED,
    ActiveModel,
    DayInput,
    ExportReceipt,
    FailureRecord,
    LandingFile,
    PublishedDay,
    PublishedPart,
    ShardStats,
    State,
)
from batch_scoring_tests.reliability.store import Store

DAY = "2024-03-04"
NOW = datetime(2024, 3, 5, 6, 0, tzinfo=UTC)
FILE = LandingFile(path=f"dt={DAY}/a.csv", token="t", size=10, modified=NOW, rows=3, columns={"id": "string"})
INPUT = DayInput(day=DAY, fingerprint="f", files=(FILE, FILE), run_id="run", pinned_at=NOW)
MODEL = ActiveModel(name="tiny", version="v1", sha256="0" * 64, source="/models/v1", run_id="run", resolved_at=NOW)
SHARD = ShardStats(
    digest="d",
    source="s",
    run_id="run",
    rows_in=10,
    rows=7,
    quarantined={"rule": {"x: ge": 1}, "duplicate": {"id: key_is_unique": 2}},
    missing_identity=0,
    keys=2**64 - 1,
)
PART = PublishedPart(transaction=2, version=5, files=("a", "b"), bytes=100)


def published_day(day: str = DAY, **changes: object) -> PublishedDay:
    return PublishedDay(
        pipeline="tiny",
        day=day,
        step="predictions",
        run_id="run",
        finished_at=NOW,
        fingerprint="f",
        code="c",
        model_version="v1",
        model_sha256="0" * 64,
        shards=(SHARD, SHARD),
        table=PART,
        quarantine=PART,
    ).model_copy(update=changes)


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(open_folder(str(tmp_path)))


def test_documents_come_back_as_written(state: State) -> None:
    state.put_day_input(INPUT)
    state.put_model(MODEL)
    state.put_published_day(published_day())
    assert state.day_input(DAY) == INPUT and INPUT.rows == 6
    assert state.model() == state.model_or_none() == MODEL
    assert state.published_day("predictions", DAY) == published_day()


def test_documents_stand_where_the_design_says(state: State, tmp_path: Path) -> None:
    state.put_day_input(INPUT)
    state.put_model(MODEL)
    state.put_published_day(published_day())
    state.put_published_day(published_day(step="validated_features"))
    files = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.json")}
    assert files == {
        f"state/dt={DAY}/input.json",
        f"state/dt={DAY}/predictions.json",
        f"state/dt={DAY}/validated_features.json",
        "state/model.json",
    }
    assert state.models.uri == str(tmp_path / "state/models")


def test_what_is_missing_names_the_asset_to_run_first(state: State, tmp_path: Path) -> None:
    with pytest.raises(StateError, match=f"^{DAY} has no pinned input in {tmp_path}/state; run raw_input"):
        state.day_input(DAY)
    with pytest.raises(StateError, match=f"^no model is active in {tmp_path}/state; run the asset model first"):
        state.model()
    assert state.model_or_none() is None
    assert state.published_day("predictions", DAY) is None
    assert state.published_days("predictions") == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"pipeline": "tiny"}'])
def test_a_damaged_document_is_an_error_that_names_it(state: State, tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "state" / f"dt={DAY}"
    folder.mkdir(parents=True)
    for name in ("input", "predictions"):
        (folder / f"{name}.json").write_bytes(content)
    (tmp_path / "state/model.json").write_bytes(content)
    for path, read in (
        (f"dt={DAY}/input.json", lambda: state.day_input(DAY)),
        (f"dt={DAY}/predictions.json", lambda: state.published_day("predictions", DAY)),
        (f"dt={DAY}/predictions.json", lambda: state.published_days("predictions")),
        ("model.json", state.model),
    ):
        with pytest.raises(
            StateError, match=f"^{tmp_path}/state/{path} is damaged: .*; remove it and run the day again$"
        ):
            read()


def test_a_document_of_a_later_release_with_more_fields_is_read(state: State, tmp_path: Path) -> None:
    state.put_model(MODEL)
    file = tmp_path / "state/model.json"
    file.write_text(file.read_text().replace("{", '{"promoted_by": "ci",', 1))
    assert state.model() == MODEL


def test_accounts_are_those_of_the_step_by_day(state: State) -> None:
    days = ["2024-03-09", "2024-02-29", "2024-03-10"]
    for day in days:
        state.put_published_day(published_day(day))
        state.put_day_input(INPUT.model_copy(update={"day": day}))
    state.put_published_day(published_day("2024-03-11", step="validated_features"))
    assert [found.day for found in state.published_days("predictions")] == sorted(days)


def test_the_newest_published_days_are_found_without_reading_the_years_before_a_step_was_added(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [str(date(2020, 1, 1) + timedelta(number)) for number in range(1500)]
    for day in days:
        state.put_day_input(INPUT.model_copy(update={"day": day}))
    for day in (days[-1], days[-3], days[-5], days[-7]):
        state.put_published_day(published_day(day))
    read: list[str] = []
    each = LocalFolder.read_each

    def counted(folder: LocalFolder, paths: Sequence[str]) -> list[bytes | None]:
        read.extend(paths)
        return each(folder, paths)

    monkeypatch.setattr(LocalFolder, "read_each", counted)

    def newest(count: int) -> list[str]:
        return [found.day for found in state.newest_published_days("predictions", count, lambda day: day != days[-3])]

    assert newest(2) == [days[-1], days[-5]]
    assert newest(9) == [days[-1], days[-5], days[-7]]
    assert len(read) <= 2 * (MOST_UNPUBLISHED + 9)


def test_a_days_account_is_the_sum_of_its_shards() -> None:
    assert SHARD.rows_quarantined == 3
    day = published_day()
    assert (day.rows_in, day.rows, day.rows_quarantined) == (20, 14, 6)


def test_documents_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        MODEL.version = "v2"  # type: ignore[misc]


def test_a_receipt_replaces_only_the_one_that_was_found(state: State) -> None:
    first = ExportReceipt(
        pipeline="tiny",
        export="list",
        day=DAY,
        of="predictions",
        created=1,
        transaction=1,
        files=("a",),
        settings="s",
        outcome="exported",
        rows=7,
        run_id="first",
        began_at=NOW,
        finished_at=NOW,
    )
    second, late = (first.model_copy(update={"run_id": run}) for run in ("second", "late"))
    assert state.receipt_token("list", DAY) is None
    state.put_receipt(first, None)
    token = state.receipt_token("list", DAY)
    state.put_receipt(second, token)
    for found in (token, None):
        with pytest.raises(FileChangedError):
            state.put_receipt(late, found)
    assert state.receipt("list", DAY) == second


def failure(run_id: str = "run", **changes: object) -> FailureRecord:
    fields = {"day": DAY, "step": "predictions", "failure_class": "lost", "at": NOW, "message": "its process is gone"}
    return FailureRecord.model_validate({"run_id": run_id, **fields, **changes})


def test_failures_are_listed_from_a_time_on_oldest_first(state: State) -> None:
    ended = [failure(f"run-{hours}", at=NOW + timedelta(hours=hours)) for hours in (3, 1, 2)]
    for record in ended:
        state.put_failure(record)
    assert state.failures_since(NOW) == [ended[1], ended[2], ended[0]]
    assert state.failures_since(NOW + timedelta(hours=2)) == [ended[2], ended[0]]
    assert state.failures_since(NOW + timedelta(hours=2, microseconds=1)) == [ended[0]]
    elsewhere = (NOW + timedelta(hours=2)).astimezone(timezone(timedelta(hours=-9)))
    assert state.failures_since(elsewhere) == [ended[2], ended[0]]


def test_of_two_records_of_a_run_the_last_counts(state: State) -> None:
    first, other = failure(at=NOW), failure("other", at=NOW + timedelta(seconds=1))
    last = failure(at=NOW + timedelta(seconds=2), failure_class="storage")
    for record in (last, first, other):
        state.put_failure(record)
    assert state.failures_since(NOW) == [other, last]


@pytest.mark.parametrize("content", [b"", b'{"run_id": "r", "day', b"null", b"\xff\xfe"])
def test_a_torn_record_of_a_failure_hides_no_other(state: State, tmp_path: Path, content: bytes) -> None:
    state.put_failure(failure("first"))
    state.put_failure(failure("torn", at=NOW + timedelta(hours=1)))
    state.put_failure(failure("last", at=NOW + timedelta(hours=2)))
    next((tmp_path / "state/failures").glob("*-torn.json")).write_bytes(content)
    assert [record.run_id for record in state.failures_since(NOW)] == ["first", "last"]


def test_whether_a_failure_is_recorded_is_known_without_reading_it(state: State, tmp_path: Path) -> None:
    assert not state.has_failure("run", NOW)
    state.put_failure(failure("run", at=NOW + timedelta(hours=1)))
    (file,) = (tmp_path / "state/failures").iterdir()
    assert file.name == "20240305T070000.000000Z-run.json"
    file.write_bytes(b"torn")
    assert state.has_failure("run", NOW)
    assert not state.has_failure("un", NOW) and not state.has_failure("run", NOW + timedelta(hours=2))


@pytest.mark.s3
def test_on_s3_a_failure_is_one_request_to_write_and_one_to_list(store: Store) -> None:
    state = State(S3Folder(f"s3://{store.new_bucket()}/output"))
    for hours in range(8):
        state.put_failure(failure(f"run-{hours}", at=NOW + timedelta(hours=hours)))
    before = store.proxy.statuses.total()
    state.put_failure(failure("run-8", at=NOW + timedelta(hours=8)))
    assert store.proxy.statuses.total() - before == 1
    assert state.has_failure("run-8", NOW)
    assert store.proxy.statuses.total() - before == 2
    assert [found.run_id for found in state.failures_since(NOW + timedelta(hours=6))] == ["run-6", "run-7", "run-8"]
    assert store.proxy.statuses.total() - before == 2 + 1 + 3


# what a day took


def test_what_a_day_took_is_its_shards_and_its_overhead(state: State) -> None:
    one, other, overhead = (Usage(wall_seconds=n, cpu_seconds=2 * n, gpu_seconds=0.5) for n in (1.25, 2.5, 4.0))
    shards = tuple(SHARD.model_copy(update={"usage": usage}) for usage in (one, other))
    state.put_published_day(published_day(shards=shards, overhead=overhead))
    read = state.published_day("predictions", DAY)
    assert read is not None and read.usages == (overhead, one, other)
    assert read.usage == Usage(wall_seconds=7.75, cpu_seconds=15.5, gpu_seconds=1.5)


def test_a_document_from_before_there_was_usage_says_that_it_was_not_recorded(state: State, tmp_path: Path) -> None:
    content = published_day().model_dump(mode="json", exclude={"overhead": True, "shards": {"__all__": {"usage"}}})
    assert "usage" not in json.dumps(content) and "overhead" not in content
    (tmp_path / "state" / f"dt={DAY}").mkdir(parents=True)
    (tmp_path / "state" / f"dt={DAY}" / "predictions.json").write_text(json.dumps(content))
    read = state.published_day("predictions", DAY)
    assert read == published_day() and (read.usage, read.usages) == (None, None)
    newer = {**content, "overhead": {"wall_seconds": 1.0, "joules": 7}}
    (tmp_path / "state" / f"dt={DAY}" / "predictions.json").write_text(json.dumps(newer))
    read = state.published_day("predictions", DAY)
    assert read is not None and read.overhead == Usage(wall_seconds=1.0), "what a newer version adds is passed over"
    assert read.usage is None, "its shards were not measured"
