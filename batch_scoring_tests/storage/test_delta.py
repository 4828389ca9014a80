"""A day is read whole or not at all, and published as the difference to what stands there."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.errors import PublicationError, SchemaChangedError
from batch_scoring.storage import shards
from batch_scoring.storage.delta import Part, Snapshot, Table, _difference, publish
from batch_scoring.storage.folders import local
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.shards import ShardFile, identity_of
from batch_scoring.storage.state import PublishedPart, ShardStats
from batch_scoring_tests.tiny import DAY, NEXT_DAY

SCHEMA = pa.schema([("id", pa.string()), ("x", pa.float64())])


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(open_folder(str(tmp_path / "table")), "things")


def shard(table: Table, digest: str, keys: str, day: str = DAY, **columns: pa.Array) -> ShardFile:
    """A shard with one row a letter of `keys`."""
    rows = pa.table({"id": list(keys), **(columns or {"x": [1.0] * len(keys)})})
    stats = ShardStats(digest=shards.digest(digest), source="s", run_id="r", rows_in=len(keys), rows=len(keys))
    with shards.writing(table.folder, rows.schema) as writer:
        for batch in rows.to_batches():
            writer.write(batch)
        return writer.finish(f"dt={day}/", stats)


def commit(
    table: Table,
    *files: ShardFile,
    day: str = DAY,
    schema: pa.Schema = SCHEMA,
    check_current: Callable[[], None] = lambda: None,
    timeout: float = 30.0,
) -> tuple[PublishedPart, bool]:
    return publish(
        Part(table, day, "things"),
        {file.identity: file for file in files},
        schema,
        check_current=check_current,
        lineage={"run_id": "r"},
        timeout=timeout,
    )


def keys(table: Table) -> str:
    """All keys of the table, sorted; read by somebody else's reader."""
    delta = table.load()
    assert delta is not None
    files = [Path(table.folder.uri, path) for path in pa.table(delta.get_add_actions())["path"].to_pylist()]
    return "".join(sorted(key for file in files for key in pq.read_table(file)["id"].to_pylist()))


# publishing


def test_what_is_published_is_exactly_what_was_planned(table: Table) -> None:
    first, second, third = (shard(table, letter, letter) for letter in "abc")
    part, committed = commit(table, first, second)
    assert committed and set(part.files) == {first.path, second.path} and part.transaction == 1
    assert part.bytes == first.size + second.size
    assert keys(table) == "ab"
    part, committed = commit(table, second, third)
    assert committed and set(part.files) == {second.path, third.path} and part.transaction == 2
    assert keys(table) == "bc"


def test_publishing_what_stands_commits_nothing(table: Table) -> None:
    file = shard(table, "a", "a")
    first, _ = commit(table, file)
    assert commit(table, file) == (first, False)
    again = shard(table, "a", "a")
    assert again.path != file.path
    assert commit(table, again) == (first, False), "another attempt at the same shard"


def test_nothing_planned_and_no_table_is_no_commit(table: Table) -> None:
    assert commit(table) == (PublishedPart(transaction=0, version=-1, files=()), False)
    assert table.load() is None


def test_a_day_can_be_emptied(table: Table) -> None:
    commit(table, shard(table, "a", "a"))
    part, committed = commit(table)
    assert committed and part.files == () and part.transaction == 2
    assert Part(table, DAY, "things").snapshot().files == {}


def test_other_days_stay_as_they_are(table: Table) -> None:
    commit(table, shard(table, "a", "a", NEXT_DAY), day=NEXT_DAY)
    commit(table, shard(table, "b", "b"))
    commit(table, shard(table, "c", "c"))
    assert keys(table) == "ac"
    assert Part(table, NEXT_DAY, "things").snapshot().transaction == 1
    assert Part(table, DAY, "things").snapshot().transaction == 2


def test_stages_of_one_day_are_parts_of_their_own(tmp_path: Path) -> None:
    table = Table(open_folder(str(tmp_path / "table")), "quarantine", ("dt", "stage"))

    def own(owner: str, *stages: str) -> Part:
        return Part(table, DAY, owner, stages)

    def put(part: Part, *stages: str) -> PublishedPart:
        files = []
        for stage in stages:
            file = shard(table, stage, "a", f"{DAY}/stage={stage}")
            files.append(file)
        planned = {file.identity: file for file in files}
        return publish(part, planned, SCHEMA, check_current=lambda: None, lineage={})[0]

    features, scores = own("validated_features", "read", "rule"), own("predictions", "score")
    put(features, "read", "rule")
    put(scores, "score")
    put(features, "rule")
    assert [path.split("/")[1] for path in features.snapshot().files] == ["stage=rule"]
    assert [path.split("/")[1] for path in scores.snapshot().files] == ["stage=score"]
    assert (features.snapshot().transaction, scores.snapshot().transaction) == (2, 1)


def test_a_planned_file_that_is_missing_is_not_committed(table: Table) -> None:
    commit(table, shard(table, "a", "a"))
    file = shard(table, "b", "b")
    Path(table.folder.uri, file.path).unlink()
    with pytest.raises(PublicationError) as raised:
        commit(table, file)
    assert str(raised.value) == (
        f"{table.folder.uri}/{file.path} has no bytes, but {file.size} were written; "
        "nothing was published: run the day again"
    )
    assert keys(table) == "a"


def test_a_planned_file_of_another_size_is_not_committed(table: Table) -> None:
    commit(table, shard(table, "a", "a"))
    file = shard(table, "b", "b")
    with Path(table.folder.uri, file.path).open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(PublicationError, match=f"has {file.size + 4} bytes, but {file.size} were written"):
        commit(table, file)
    assert keys(table) == "a"


def test_an_active_file_that_is_gone_or_cut_is_replaced(table: Table) -> None:
    one, two = shard(table, "a", "a"), shard(table, "b", "b")
    commit(table, one, two)
    Path(table.folder.uri, one.path).unlink()
    with Path(table.folder.uri, two.path).open("ab") as stream:
        stream.write(b"more")
    found = Part(table, DAY, "things").snapshot()
    assert found.damaged == {one.path, two.path}
    assert not found.holds(PublishedPart(transaction=1, version=1, files=tuple(found.files)))
    _, committed = commit(table, shard(table, "a", "a"), shard(table, "b", "b"))
    assert committed and keys(table) == "ab"
    _, committed = commit(table, shard(table, "a", "a"), shard(table, "b", "b"))
    assert not committed


def test_whoever_raises_in_the_check_of_currency_publishes_nothing(table: Table) -> None:
    commit(table, shard(table, "a", "a"))

    def superseded() -> None:
        raise KeyError("newer input")

    with pytest.raises(KeyError, match="newer input"):
        commit(table, shard(table, "b", "b"), check_current=superseded)
    assert keys(table) == "a"


def test_a_commit_of_somebody_else_in_between_is_planned_around(table: Table) -> None:
    """The real conflict: another day is committed between the load and the commit."""
    commit(table, shard(table, "a", "a"))
    calls = []

    def interfere() -> None:
        calls.append(None)
        if len(calls) == 1:
            commit(table, shard(table, "z", "z", NEXT_DAY), day=NEXT_DAY)

    part, committed = commit(table, shard(table, "b", "b"), check_current=interfere)
    assert committed and part.transaction == 2
    assert keys(table) == "bz"
    assert len(calls) == 3, "conflict, commit, look again"


def test_the_same_day_published_twice_in_between_never_doubles(table: Table) -> None:
    calls = []

    def interfere() -> None:
        calls.append(None)
        if len(calls) <= 2:
            commit(table, shard(table, "a", "a"))

    commit(table, shard(table, "a", "a"), shard(table, "b", "b"), check_current=interfere)
    assert keys(table) == "ab"


def test_a_table_that_is_always_ahead_runs_into_the_timeout(table: Table) -> None:
    commit(table, shard(table, "a", "a"))
    count = 0

    def interfere() -> None:
        nonlocal count
        count += 1
        commit(table, shard(table, f"z{count}", "z", NEXT_DAY), day=NEXT_DAY)

    with pytest.raises(PublicationError, match=f"{DAY} could not be committed within 0 s: .*; nothing was published"):
        commit(table, shard(table, "b", "b"), check_current=interfere, timeout=0.2)
    assert "b" not in keys(table)


# the schema


def test_new_columns_are_added_nullable(table: Table) -> None:
    commit(table, shard(table, "a", "a"))
    wider = pa.schema([*SCHEMA, pa.field("z", pa.float32(), nullable=False)])
    file = shard(table, "b", "b", NEXT_DAY, x=pa.array([1.0]), z=pa.array([0.5], pa.float32()))
    commit(table, file, day=NEXT_DAY, schema=wider)
    delta = table.load()
    assert delta is not None
    form = pa.schema(delta.schema().to_arrow())
    assert form.field("z").type == pa.float32() and form.field("z").nullable


def test_a_column_that_the_rows_lack_may_stay(table: Table) -> None:
    commit(table, shard(table, "a", "a"))
    narrow = pa.schema([("id", pa.string())])
    commit(table, shard(table, "b", "b", id=pa.array(["b"])), schema=narrow)
    assert keys(table) == "b"


def test_a_retyped_column_is_refused_by_name(table: Table) -> None:
    commit(table, shard(table, "a", "a"))
    other = pa.schema([("id", pa.string()), ("x", pa.int64())])
    with pytest.raises(SchemaChangedError, match="column x is double in the table and would become int64; give"):
        commit(table, shard(table, "b", "b", x=pa.array([1])), schema=other)
    assert keys(table) == "a"


def test_the_log_is_kept_for_ten_years(table: Table) -> None:
    commit(table, shard(table, "a", "a"))
    delta = table.load()
    assert delta is not None
    assert delta.metadata().configuration == {
        "delta.logRetentionDuration": "interval 3650 days",
        "delta.checkpointInterval": "10",
    }
    assert delta.metadata().partition_columns == ["dt"]


def test_a_commit_and_its_checkpoint_withstand_a_power_cut(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tenth commit makes a checkpoint, so that loading a table reads ten files of its log and not a hundred."""
    on_disk: list[str] = []

    def force_to_disk(path: Path) -> None:
        real(path)
        on_disk.append(path.name)

    real = local.force_to_disk
    monkeypatch.setattr(local, "force_to_disk", force_to_disk)
    for number in range(1, 10):  # the table's creation is commit 0
        on_disk.clear()
        commit(table, shard(table, f"{number}", "a" * number))
        checkpoint = [f"{number:020}.checkpoint.parquet", "_last_checkpoint"] if number == 9 else []
        assert on_disk[-2 - len(checkpoint) :] == [f"{number:020}.json", *checkpoint, "_delta_log"]
    assert keys(table) == "a" * 9


def test_row_counts_and_lineage_stand_in_the_log(table: Table) -> None:
    commit(table, shard(table, "a", "aaa"))
    delta = table.load()
    assert delta is not None
    actions = pa.table(delta.get_add_actions(flatten=True))
    assert actions["num_records"].to_pylist() == [3]
    assert actions["partition.dt"].to_pylist() == [date.fromisoformat(DAY)]
    assert delta.history(1)[0]["run_id"] == "r"


# what is to be added and removed

DIGESTS = [shards.digest(letter) for letter in "abcdef"]


@given(
    active=st.lists(st.tuples(st.sampled_from(DIGESTS), st.integers(0, 5)), unique=True, max_size=8),
    strangers=st.sets(st.sampled_from(["part-0.parquet", "optimized.zstd.parquet"])),
    planned=st.sets(st.sampled_from(DIGESTS)),
)
def test_a_difference_leads_from_any_version_to_exactly_the_plan(
    active: list[tuple[str, int]], strangers: set[str], planned: set[str]
) -> None:
    files = {f"dt={DAY}/{digest}-0000000{attempt}.parquet": attempt for digest, attempt in active}
    files |= {f"dt={DAY}/{name}": 1 for name in strangers}
    wanted = {f"dt={DAY}/{digest}": ShardFile(f"dt={DAY}/{digest}-ffffffff.parquet", 9) for digest in planned}
    adds, removes = _difference(Snapshot(3, 1, files), wanted)
    after = (files.keys() - removes.keys()) | {add.path for add in adds}
    assert sorted(map(identity_of, after)) == sorted(wanted), "each planned shard once and nothing else"
    assert removes.items() <= files.items()
    present = {identity_of(path) for path in files}
    assert {add.identity for add in adds} == wanted.keys() - present, "a shard that is there is never written again"
    again = {path: 1 for path in after}
    assert _difference(Snapshot(4, 2, again), wanted) == ([], {}), "and then there is nothing to do"
