from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_scoring.storage import parquet

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("small", pa.int16()),
        pa.field("share", pa.float32()),
        pa.field("kind", pa.string()),
        pa.field("file", pa.string(), nullable=False),
    ]
)


def rows(file: pa.Array | None = None) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "small": pa.array([1, None, -3], pa.int16()),
            "share": pa.array([0.5, None, 1.0], pa.float32()),
            "id": ["a", "b", "c"],
            "count": [3, 2**62, -5],
            "kind": ["x", None, "x"],
            "file": file or ["f", "f", "f"],
        }
    )


def written(path: Path, *batches: pa.RecordBatch) -> pq.ParquetFile:
    writer = parquet.Writer(path, SCHEMA.with_metadata({"who": "me"}), ["kind", "file"])
    for batch in batches:
        writer.write(batch)
    writer.close()
    return pq.ParquetFile(path)


def test_what_is_written_is_read_with_plain_types_and_its_metadata(tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet", rows(), rows(parquet.constant("f", 3)))
    assert file.schema_arrow.remove_metadata() == SCHEMA
    assert file.metadata.metadata[b"who"] == b"me"
    expected = rows().select(SCHEMA.names).to_pylist()
    assert file.read().to_pylist() == expected + expected


def test_integers_are_differences_and_only_the_named_columns_have_dictionaries(tmp_path: Path) -> None:
    group = written(tmp_path / "a.parquet", rows()).metadata.row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    encodings = {column.path_in_schema: column.encodings for column in columns}
    assert {name for name, found in encodings.items() if "DELTA_BINARY_PACKED" in found} == {"count", "small"}
    assert {name for name, found in encodings.items() if "RLE_DICTIONARY" in found} == {"kind", "file"}
    assert [column.path_in_schema for column in columns if not column.is_stats_set] == ["share"]


def test_a_missing_value_in_a_column_that_holds_none_is_refused(tmp_path: Path) -> None:
    missing = rows().drop_columns("id").append_column("id", pa.array(["a", None, "c"]))
    with pytest.raises(pa.ArrowInvalid, match="id"):
        written(tmp_path / "a.parquet", missing)


def test_text_is_left_encoded_where_that_is_asked_for(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", rows())
    with (tmp_path / "a.parquet").open("rb") as stream:
        (batch,) = parquet.read(stream, ["kind", "count"], ["kind"])
    assert set(batch.schema.names) == {"count", "kind"}
    assert pa.types.is_dictionary(batch.column("kind").type)


def test_small_batches_become_row_groups_that_keep_their_dictionaries(tmp_path: Path) -> None:
    parts = [
        rows().set_column(rows().schema.get_field_index("kind"), "kind", pa.array([f"x{n}"] * 3)) for n in range(9)
    ]
    file = written(tmp_path / "a.parquet", *parts)
    assert file.num_row_groups == 1
    kind = next(c for c in map(file.metadata.row_group(0).column, range(6)) if c.path_in_schema == "kind")
    assert "RLE_DICTIONARY" in kind.encodings
    assert kind.total_uncompressed_size < 200  # each word once, and 27 places of it
    assert file.read()["kind"].to_pylist() == [f"x{n}" for n in range(9) for _ in range(3)]


def test_a_file_without_rows_has_its_columns(tmp_path: Path) -> None:
    assert written(tmp_path / "none.parquet").schema_arrow.names == SCHEMA.names
    assert written(tmp_path / "empty.parquet", rows().slice(0, 0)).read().num_rows == 0


def test_rows_with_large_cells_are_read_few_at_a_time(tmp_path: Path) -> None:
    cells = {"id": pa.array(range(300)), "photo": pa.array([bytes([row % 256]) * 1_000_000 for row in range(300)])}
    pq.write_table(pa.table(cells), tmp_path / "a.parquet", use_dictionary=False)
    with (tmp_path / "a.parquet").open("rb") as file:
        found = [(batch.num_rows, batch.nbytes) for batch in parquet.read(file)]
    assert sum(rows for rows, _ in found) == 300 and max(size for _, size in found) <= 64 * 2**20
    with (tmp_path / "a.parquet").open("rb") as file:
        assert [batch.num_rows for batch in parquet.read(file, ["id"])] == [300]
