"""A look at the state gives what the state gives, and reads a version of a document once."""

import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from batch_scoring.errors import EntryError, Trouble
from batch_scoring.storage import state_look
from batch_scoring.storage.folders.folder import Folder
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring.storage.folders.s3 import S3Folder
from batch_scoring.storage.state import ExportReceipt, FailureRecord, PublishedDay, PublishedPart, State
from batch_scoring.storage.state_look import StateLook
from batch_scoring_tests.reliability.store import Store

DAYS = [(date(2024, 1, 1) + timedelta(days=number)).isoformat() for number in range(40)]


class CountingFolder(LocalFolder):
    """A local folder that counts what it opens and lists, also below itself."""

    def __init__(self, path: str, opened: list[str] | None = None) -> None:
        super().__init__(path)
        self.opened: list[str] = [] if opened is None else opened

    def subfolder(self, path: str) -> Folder:
        return CountingFolder(f"{self.uri}/{path}", self.opened)

    def open(self, path: str, token: str | None = None) -> BinaryIO:
        self.opened.append(path)
        return super().open(path, token)


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_look, "_cache", state_look._Cache())


@pytest.fixture
def output(tmp_path: Path) -> CountingFolder:
    return CountingFolder(str(tmp_path / "output"))


def published(day: str, transaction: int = 1) -> PublishedDay:
    part = PublishedPart(transaction=transaction, version=1, files=("a.parquet",))
    now = datetime(2024, 3, 4, tzinfo=UTC)
    fields: dict[str, Any] = {"pipeline": "p", "run_id": "r", "finished_at": now, "fingerprint": "f", "code": "c"}
    return PublishedDay(day=day, step="predictions", shards=(), table=part, **fields)


def receipt(day: str, export: str = "list", transaction: int = 1) -> ExportReceipt:
    now = datetime(2024, 3, 4, tzinfo=UTC)
    fields: dict[str, Any] = {"pipeline": "p", "run_id": "r", "began_at": now, "finished_at": now, "settings": "s"}
    version: dict[str, Any] = {"of": "predictions", "created": 1, "transaction": transaction, "files": ("a.parquet",)}
    return ExportReceipt(day=day, export=export, outcome="exported", rows=1, **version, **fields)


def put(state: State, new: ExportReceipt) -> None:
    state.put_receipt(new, state.receipt_token(new.export, new.day))


def test_a_look_gives_what_the_state_gives_whatever_happens_between_looks(output: CountingFolder) -> None:
    dice, state = random.Random(7), State(output)
    for number in range(150):
        day = dice.choice(DAYS)
        match dice.randrange(5):
            case 0 | 1:
                state.put_published_day(published(day, number))
            case 2 | 3:
                put(state, receipt(day, transaction=number))
            case _:
                output.put(f"state/dt={day}/predictions.json", b"{torn")
        look, some = StateLook(output), dice.sample(DAYS, 9)
        assert look.newest_days() == state.newest_days()
        assert look.published_days_of("predictions", some) == state.published_days_of("predictions", some)
        assert look.receipts_of("list", some) == state.receipts_of("list", some)
        assert look.published_days_of("predictions", DAYS) == state.published_days_of("predictions", DAYS)


def test_a_second_look_reads_only_what_has_changed(output: CountingFolder) -> None:
    state = State(output)
    for day in DAYS:
        state.put_published_day(published(day))
        put(state, receipt(day))
    output.opened.clear()
    StateLook(output).published_days_of("predictions", DAYS[10:])
    StateLook(output).receipts_of("list", DAYS[10:])
    assert len(output.opened) == 60
    put(state, receipt(DAYS[20], transaction=2))
    output.opened.clear()
    look = StateLook(output)
    assert [found.transaction for found in look.receipts_of("list", DAYS[19:22])] == [1, 2, 1]
    assert look.published_days_of("predictions", DAYS[19:22]) == [published(day) for day in DAYS[19:22]]
    assert output.opened == [f"dt={DAYS[20]}/exports/list.json"]


def test_one_look_is_the_same_for_all_who_ask(output: CountingFolder) -> None:
    state = State(output)
    state.put_published_day(published(DAYS[5]))
    look = StateLook(output)
    assert look.newest_days() == [DAYS[5]]
    assert look.published_days_of("predictions", DAYS[5:7]) == [published(DAYS[5])]
    state.put_published_day(published(DAYS[6]))
    assert look.newest_days() == [DAYS[5]]
    assert look.published_days_of("predictions", DAYS[5:7]) == [published(DAYS[5])]
    assert look.published_days_of("predictions", DAYS[:7]) == [published(DAYS[5])]


def test_a_document_replaced_after_the_listing_is_read_as_it_is_now_and_not_kept(output: CountingFolder) -> None:
    state = State(output)
    put(state, receipt(DAYS[5]))
    look = StateLook(output)
    assert look.receipts_of("another", DAYS[5:6]) == []  # lists
    put(state, receipt(DAYS[5], transaction=2))
    assert look.receipts_of("list", DAYS[5:6]) == [receipt(DAYS[5], transaction=2)]
    output.opened.clear()
    assert StateLook(output).receipts_of("list", DAYS[5:6]) == [receipt(DAYS[5], transaction=2)]
    assert output.opened


def test_a_document_that_cannot_be_read_is_left_out_and_asked_for_again(output: CountingFolder) -> None:
    class Failing(CountingFolder):
        def open(self, path: str, token: str | None = None) -> BinaryIO:
            raise EntryError(f"{self.uri}/{path}", Trouble("its disk is broken"))

        def subfolder(self, path: str) -> Folder:
            return Failing(f"{self.uri}/{path}")

    put(State(output), receipt(DAYS[5]))
    assert StateLook(Failing(output.uri)).receipts_of("list", DAYS) == []
    assert StateLook(output).receipts_of("list", DAYS) == [receipt(DAYS[5])]


def test_the_documents_kept_have_a_bound(output: CountingFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(output)
    for day in DAYS:
        put(state, receipt(day))
    size = output.list("state/dt=")[0].size
    monkeypatch.setattr(state_look, "CACHED_BYTES", 10 * size)
    StateLook(output).receipts_of("list", DAYS)
    output.opened.clear()
    assert len(StateLook(output).receipts_of("list", DAYS[-10:])) == 10
    assert output.opened == []
    assert len(StateLook(output).receipts_of("list", DAYS[:10])) == 10
    assert len(output.opened) == 10


def test_failed_runs_are_read_once(output: CountingFolder) -> None:
    state, now = State(output), datetime(2024, 3, 4, tzinfo=UTC)
    fields = {"day": DAYS[0], "step": "predictions", "failure_class": "lost", "message": "gone"}
    for hours in range(3):
        at = now + timedelta(hours=hours)
        state.put_failure(FailureRecord.model_validate({"run_id": f"r{hours}", "at": at, **fields}))
    assert StateLook(output).failures_since(now) == state.failures_since(now) != []
    output.put(f"{output.list('state/failures/')[1].path}", b"{torn")
    output.opened.clear()
    assert [found.run_id for found in StateLook(output).failures_since(now)] == ["r0", "r2"]
    assert len(output.opened) == 1


@pytest.mark.s3
def test_on_s3_a_look_at_unchanged_documents_only_lists(store: Store) -> None:
    output = S3Folder(f"s3://{store.new_bucket()}/output")
    state = State(output)
    for day in DAYS:
        put(state, receipt(day))
    assert StateLook(output).receipts_of("list", DAYS[3:]) == [receipt(day) for day in DAYS[3:]]
    before = store.proxy.statuses.total()
    assert StateLook(output).receipts_of("list", DAYS[3:]) == [receipt(day) for day in DAYS[3:]]
    assert store.proxy.statuses.total() - before == 1


@pytest.mark.s3
def test_a_listing_begins_after_a_path_on_s3_as_on_a_disk(store: Store, tmp_path: Path) -> None:
    folders: list[Folder] = [S3Folder(f"s3://{store.new_bucket()}/root"), LocalFolder(str(tmp_path))]
    for folder in folders:
        for path in ("dt=1/a", "dt=2/a", "dt=2/b/c", "dt=2/z", "dt=20/a", "dt=2é/a", "dt=3/a", "top"):
            folder.put(path, b"x")
    for after in ("", "dt=1", "dt=2", "dt=2/", "dt=2/a", "dt=2/b", "dt=2/b/", "dt=2/b/c", "dt=2é", "dt=3/a", "u"):
        found = [[file.path for file in folder.list("dt=", after)] for folder in folders]
        assert found[0] == found[1] == [file.path for file in folders[1].list("dt=") if file.path > after]
