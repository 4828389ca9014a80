"""Samples are read and validated as the files of a day are, and keep what training alone knows."""

import gzip
import json
import os
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from batch_scoring.errors import ContractError, UnreadableFileError
from batch_scoring.ingest import samples
from batch_scoring.ingest.samples import Sample, SampleRows
from batch_scoring.ingest.schema.contract import Contract
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import SCHEMA, TinyProject

DAYS = [date(2024, 1, 1), date(2024, 1, 2)]


def read(tiny: TinyProject, sample: Sample) -> SampleRows:
    return samples.read(sample, Contract(tiny.pipeline), tiny.pipeline.spec.input.csv)


def labelled(tiny: TinyProject, count: int = 100, start: int = 0) -> pa.Table:
    rows = tiny.rows(count, start)
    days = pa.array([DAYS[number % 2] for number in range(count)])
    return rows.append_column("left", pa.array(["yes", "no", None, "no"] * (count // 4))).append_column("dt", days)


def reasons(found: SampleRows) -> list[tuple[str, int, str, str]]:
    columns = ("row_number", "stage", "column", "rule")
    return [tuple(row[name] for name in ("id", *columns)) for row in found.rejected.to_pylist()]  # type: ignore[misc]


def as_csv(rows: pa.Table, file: Path) -> Path:
    pyarrow.csv.write_csv(rows, file)
    return file


def as_lines(rows: pa.Table, file: Path) -> Path:
    lines = "".join(json.dumps(row, default=str) + "\n" for row in rows.to_pylist())
    file.write_bytes(gzip.compress(lines.encode()) if file.suffix == ".gz" else lines.encode())
    return file


def as_parquet(rows: pa.Table, file: Path) -> Path:
    pq.write_table(rows, file)
    return file


def test_a_table_a_frame_and_files_of_every_format_give_the_same_rows(tiny: TinyProject, tmp_path: Path) -> None:
    rows = labelled(tiny)
    expected = read(tiny, rows)
    assert expected.accepted.equals(tiny.rows(100).cast(expected.accepted.schema))
    assert expected.others.column_names == ["left", "dt"]
    assert expected.others["left"].equals(rows["left"])
    others: list[Sample] = [
        rows.to_pandas(),  # with floats in place of missing integers, and objects in place of dates
        as_csv(rows, tmp_path / "rows.csv"),
        str(as_parquet(rows, tmp_path / "rows.parquet")),
        as_lines(rows, tmp_path / "rows.jsonl"),
        as_lines(rows, tmp_path / "rows.jsonl.gz"),
    ]
    for sample in others:
        found = read(tiny, sample)
        assert found.accepted.equals(expected.accepted), sample
        assert found.others.cast(expected.others.schema).equals(expected.others), sample
        assert not found.rejected.num_rows


def test_integers_that_pandas_made_floats_are_integers_again(tiny: TinyProject) -> None:
    tiny.write_code(schema=SCHEMA.replace("n: int = pa.Field(ge=0)", "n: int = pa.Field(ge=0, nullable=True)"))
    frame = tiny.rows(8).to_pandas()
    frame.loc[3, "n"] = None
    assert frame["n"].dtype == np.float64
    found = read(tiny, frame)
    assert found.accepted["n"].to_pylist() == [0, 1, 2, None, 4, 0, 1, 2]
    frame.loc[4, "n"] = 0.5
    with pytest.raises(ContractError, match=r"the sample: column n is double, .* expects int64"):
        read(tiny, frame)


def test_rejected_rows_have_their_place_and_their_reason(tiny: TinyProject, tmp_path: Path) -> None:
    rows = labelled(tiny, 8)
    rows = rows.set_column(1, "x", pa.array([0.0, 5_000.0, 0, 0, 0, 0, 0, 0]))
    file = as_csv(pa.concat_tables([rows, labelled(tiny, 4)]), tmp_path / "rows.csv")
    file.write_text(file.read_text().replace('"k0000003",', '"k0000003",oops', 1))
    found = read(tiny, file)
    assert reasons(found) == [
        ("k0000001", 2, "rule", "x", "less_than_or_equal_to(1000)"),
        ("k0000003", 4, "schema", "x", "is_double"),
        ("k0000000", 9, "duplicate", "id", "key_is_unique"),
        ("k0000002", 11, "duplicate", "id", "key_is_unique"),
    ]
    assert set(found.rejected["source_file"].to_pylist()) == {str(file)}
    keys = found.accepted["id"].to_pylist()
    assert keys == ["k0000000", "k0000002", *(f"k000000{n}" for n in range(4, 8)), "k0000001", "k0000003"]
    assert found.places["row_number"].to_pylist() == [1, 3, 5, 6, 7, 8, 10, 12]
    assert found.others["left"].to_pylist() == ["yes", None, "yes", "no", None, "no", "no", "no"]


def test_a_key_may_occur_once_a_day(tiny: TinyProject) -> None:
    rows = tiny.rows(4)
    twice = pa.concat_tables([rows, rows])
    assert read(tiny, twice).accepted.num_rows == 4
    days = twice.append_column("dt", pa.array(["2024-01-01"] * 4 + ["2024-01-02"] * 4))
    found = read(tiny, days)
    assert found.accepted.num_rows == 8
    assert found.others["dt"].type == pa.date32()
    assert read(tiny, pa.concat_tables([days, days])).rejected.num_rows == 8


def test_of_files_in_folders_of_days_each_row_has_its_day(tiny: TinyProject, tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    for day in DAYS:
        (landing / f"dt={day}").mkdir(parents=True)
    as_csv(tiny.rows(3), landing / f"dt={DAYS[0]}/a.csv")
    as_parquet(tiny.rows(2), landing / f"dt={DAYS[1]}/b.parquet")
    (landing / "_notes.txt").write_text("not data")
    found = read(tiny, landing)
    assert found.accepted["id"].to_pylist() == ["k0000000", "k0000001", "k0000002", "k0000000", "k0000001"]
    assert found.others["dt"].to_pylist() == [DAYS[0]] * 3 + [DAYS[1]] * 2
    files = [landing / f"dt={DAYS[1]}/b.parquet", landing / f"dt={DAYS[0]}/a.csv"]
    assert read(tiny, files).others["dt"].to_pylist() == [DAYS[1]] * 2 + [DAYS[0]] * 3


def test_of_equal_keys_the_newest_file_s_row_is_accepted_and_rows_keep_their_order(
    tiny: TinyProject, tmp_path: Path
) -> None:
    old, new = as_csv(tiny.rows(2), tmp_path / "a.csv"), as_csv(tiny.rows(2, start=1), tmp_path / "b.csv")
    os.utime(old, (1_000, 1_000))
    found = read(tiny, [old, new])
    assert found.accepted["id"].to_pylist() == ["k0000000", "k0000001", "k0000002"]
    assert found.places["source_file"].to_pylist() == [str(old), str(new), str(new)]


def test_columns_that_the_schema_does_not_type_have_the_type_of_their_texts(tiny: TinyProject, tmp_path: Path) -> None:
    more = {"price": ["1.5", "", "3"], "count": ["1", "2", ""], "sure": ["true", "false", ""], "word": ["1", "b", ""]}
    rows = tiny.rows(3)
    for name, values in more.items():
        rows = rows.append_column(name, pa.array(values))
    others = read(tiny, as_csv(rows, tmp_path / "a.csv")).others
    assert others["price"].to_pylist() == [1.5, None, 3.0]
    assert others["count"].to_pylist() == [1, 2, None]
    assert others["sure"].to_pylist() == [True, False, None]
    assert others["word"].to_pylist() == ["1", "b", None]


def test_columns_of_the_schema_that_scoring_does_not_keep_are_among_the_others(
    tiny: TinyProject, tmp_path: Path
) -> None:
    tiny.spec["features"]["numeric"] = ["x"]
    tiny.write_spec()
    found = read(tiny, tiny.rows(5))
    assert found.accepted.column_names == ["id", "x", "c"]
    assert found.others.select(["y", "n"]).equals(tiny.rows(5).select(["y", "n"]))
    of_text = read(tiny, as_csv(tiny.rows(5), tmp_path / "a.csv"))
    assert of_text.others.equals(found.others)


def test_a_file_without_more_columns_stands_beside_one_with_some(tiny: TinyProject, tmp_path: Path) -> None:
    one, two = as_csv(tiny.rows(2), tmp_path / "a.csv"), as_csv(labelled(tiny, 4, start=10), tmp_path / "b.csv")
    assert read(tiny, [one, two]).others["left"].to_pylist() == [None, None, "yes", "no", None, "no"]
    assert read(tiny, one).others.column_names == []


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (lambda rows: rows.slice(0, 0), "the sample has no rows"),
        (lambda _: [], "the sample has no rows"),
        (lambda rows: rows.drop_columns(["x"]), "the sample has no column x, which schema:Rows of tiny"),
        (lambda rows: rows.append_column("x", rows["x"]), "the sample has two columns x"),
        (lambda rows: rows.append_column("dt", pa.array(["soon"] * 4)), "the sample: dt is string, not the day of"),
        (lambda rows: rows.append_column("dt", pa.array([DAYS[0], None] * 2)), "2 of 4 rows have no day in dt"),
        (lambda rows: pd.DataFrame({"id": ["a", 1, b"c"]}), "the sample cannot be a table: .*"),
    ],
)
def test_a_sample_that_is_not_of_the_pipeline_is_refused(tiny: TinyProject, sample: object, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        read(tiny, sample(tiny.rows(4)))  # type: ignore[operator]


def test_a_file_that_is_not_there_or_of_another_type_is_refused(tiny: TinyProject, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"none.csv: there is no file; expected one, or a folder with some"):
        read(tiny, tmp_path / "none.csv")
    one = as_parquet(tiny.rows(2).append_column("left", pa.array([1, 2])), tmp_path / "a.parquet")
    two = as_parquet(tiny.rows(2, 9).append_column("left", pa.array(["a", "b"])), tmp_path / "b.parquet")
    with pytest.raises(ContractError, match="the files of the sample have a column of several types"):
        read(tiny, [one, two])


@pytest.mark.s3
def test_a_sample_may_be_on_s3(tiny: TinyProject, store: Store) -> None:
    bucket = f"s3://{store.new_bucket()}"
    sink = pa.BufferOutputStream()
    pq.write_table(labelled(tiny, 8), sink)
    open_folder(bucket).put("samples/rows.parquet", sink.getvalue().to_pybytes())
    for place in ("samples/rows.parquet", "samples"):
        found = read(tiny, f"{bucket}/{place}")
        assert found.accepted.num_rows == 8
        assert found.places["source_file"][0].as_py() == f"{bucket}/samples/rows.parquet"
