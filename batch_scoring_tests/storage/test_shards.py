"""A complete file with the right digest is the shard; anything less is not."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_scoring.storage import shards
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.folders.folder import Folder
from batch_scoring.storage.shards import ShardFile
from batch_scoring.storage.state import ShardStats

DAY = "dt=2024-03-04/"
ROWS = pa.table({"id": ["a", "b", "c"], "x": [1.0, None, 3.0], "kind": ["u", "u", "v"]})


@pytest.fixture
def table(tmp_path: Path) -> Folder:
    return open_folder(str(tmp_path / "table"))


def stats(digest: str, **changes: object) -> ShardStats:
    return ShardStats(digest=digest, source="a.parquet#0", run_id="run", rows_in=3, rows=3).model_copy(update=changes)


def write(table: Folder, digest: str, content: pa.Table = ROWS, **changes: object) -> ShardFile:
    with shards.writing(table, content.schema, ["kind"]) as writer:
        for batch in content.to_batches():
            writer.write(batch)
        return writer.finish(DAY, stats(digest, **changes))


def age(table: Folder, shard: ShardFile, days: float) -> None:
    stamp = time.time() - days * 86_400
    os.utime(Path(table.uri, shard.path), (stamp, stamp))


def test_a_shard_is_named_by_its_digest_and_never_overwrites_another(table: Folder) -> None:
    digest = shards.digest("a")
    first, second = write(table, digest), write(table, digest)
    assert first.path != second.path and first.identity == second.identity == f"{DAY}{digest}"
    assert {file.path: file.size for file in table.list()} == {s.path: s.size for s in (first, second)}


def test_a_digest_names_its_parts_in_their_order() -> None:
    assert shards.digest("a", 1) == shards.digest("a", "1") != shards.digest(1, "a")
    assert shards.digest("ab", "c") != shards.digest("a", "bc")
    assert len(shards.digest()) == 32


def test_rows_and_account_come_back_as_written(table: Folder) -> None:
    shard = write(table, shards.digest("a"), quarantined={"rule": {"x: ge": 2}})
    assert pa.Table.from_batches(shards.read(table, shard.path)).equals(ROWS)
    assert shards.schema(table, shard.path).names == ["id", "x", "kind"]
    assert shards.read_stats(table, shard) == stats(shards.digest("a"), quarantined={"rule": {"x: ge": 2}})


def test_only_the_wanted_columns_are_read_and_dictionaries_are_kept(table: Folder) -> None:
    shard = write(table, shards.digest("a"))
    (batch,) = shards.read(table, shard.path, ["kind", "id"], dictionary=["kind"])
    assert sorted(batch.schema.names) == ["id", "kind"]
    assert pa.types.is_dictionary(batch["kind"].type) and batch["kind"].to_pylist() == ["u", "u", "v"]


def test_a_shard_of_no_rows_is_a_shard(table: Folder) -> None:
    shard = write(table, shards.digest("a"), ROWS.slice(0, 0), rows=0)
    assert shards.read_stats(table, shard) is not None
    assert list(shards.complete(table, DAY, [])) == [shard.identity]
    assert sum(batch.num_rows for batch in shards.read(table, shard.path)) == 0


def test_what_is_not_published_leaves_nothing(table: Folder) -> None:
    with pytest.raises(RuntimeError, match="the run dies"), shards.writing(table, ROWS.schema) as writer:
        writer.write(ROWS.to_batches()[0])
        raise RuntimeError("the run dies")
    assert table.list() == []
    assert list(Path(table.uri).iterdir()) == []


def test_a_file_that_is_being_written_is_no_shard(table: Folder) -> None:
    with shards.writing(table, ROWS.schema) as writer:
        writer.write(ROWS.to_batches()[0])
        assert shards.complete(table, "", []) == {}


def test_an_orphan_is_taken_over_while_it_is_young(table: Folder) -> None:
    young, old = write(table, shards.digest("young")), write(table, shards.digest("old"))
    age(table, young, 3.4)
    age(table, old, 3.6)
    assert list(shards.complete(table, DAY, [])) == [young.identity]


def test_a_committed_file_goes_before_an_orphan_whatever_its_age(table: Folder) -> None:
    digest = shards.digest("a")
    files = [write(table, digest) for _ in range(4)]
    for committed in files:
        age(table, committed, 300)
        assert shards.complete(table, DAY, [committed.path])[committed.identity].path == committed.path
        age(table, committed, 0)


def damaged(table: Folder, digest: str) -> Iterator[tuple[str, ShardFile]]:
    shard = write(table, digest)
    file = Path(table.uri, shard.path)
    content = file.read_bytes()
    file.write_bytes(content[:-20])
    yield "truncated", shard
    file.write_bytes(b"")
    yield "empty", shard
    file.write_bytes(content[:-12] + b"\xff" * 4 + content[-8:])
    yield "damaged footer", shard
    file.unlink()
    yield "gone", shard
    pq.write_table(ROWS, file)
    yield "of somebody else", shard
    pq.write_table(ROWS.replace_schema_metadata({"batch_scoring": '{"digest": 1}'}), file)
    yield "account of another form", shard
    yield "other rows than the account says", write(table, digest, rows=4)


def test_a_file_that_is_damaged_or_not_ours_has_no_account(table: Folder) -> None:
    kinds = []
    for kind, shard in damaged(table, shards.digest("a")):
        assert shards.read_stats(table, shard) is None, kind
        kinds.append(kind)
    assert len(kinds) == 7


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        (f"{DAY}{'a' * 32}-{'b' * 8}.parquet", f"{DAY}{'a' * 32}"),
        (f"{DAY}stage=rule/{'a' * 32}-{'b' * 8}.parquet", f"{DAY}stage=rule/{'a' * 32}"),
        (f"{DAY}part-00000-{'c' * 8}-c000.zstd.parquet", f"{DAY}part-00000-{'c' * 8}-c000.zstd.parquet"),
        ("x.parquet", "x.parquet"),
    ],
)
def test_only_our_own_names_have_a_digest(path: str, identity: str) -> None:
    assert shards.identity_of(path) == identity


def test_foreign_files_beside_the_shards_are_passed_over(table: Folder) -> None:
    shard = write(table, shards.digest("a"))
    table.put(f"{DAY}part-00000-0123-c000.snappy.parquet", b"PAR1")
    table.put(f"{DAY}notes.txt", b"")
    assert list(shards.complete(table, DAY, [])) == [shard.identity]
