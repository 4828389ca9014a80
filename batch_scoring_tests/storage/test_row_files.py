"""Files of rows as CSV and as Parquet."""

import csv
import gzip
import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest

from batch_scoring.storage import row_files
from batch_scoring_tests.scored_files import BAD, put, read, score
from batch_scoring_tests.tiny import TinyProject


@pytest.mark.parametrize("form", ["csv", "csv.gz"])
def test_csv_out_has_the_same_rows_as_parquet_and_the_delimiter_of_the_spec(
    tiny: TinyProject, tmp_path: Path, form: str
) -> None:
    tiny.spec["input"]["csv"] = {"delimiter": ";"}
    tiny.write_spec()
    put(tmp_path / "a.csv", BAD.replace(",", ";"))
    assert score(tiny, tmp_path / "a.csv", tmp_path / f"out.{form}")[0] == 0
    assert score(tiny, tmp_path / "a.csv", tmp_path / "out.parquet")[0] == 0
    parse = pyarrow.csv.ParseOptions(delimiter=";", newlines_in_values=True)
    for name in ("out", "out.quarantine"):
        expected = read(tmp_path / f"{name}.parquet").drop_columns(["scored_at"] if name == "out" else [])
        convert = pyarrow.csv.ConvertOptions(
            column_types=expected.schema, strings_can_be_null=True, quoted_strings_can_be_null=False
        )
        found = pyarrow.csv.read_csv(tmp_path / f"{name}.{form}", parse_options=parse, convert_options=convert)
        assert found.select(expected.column_names).to_pylist() == expected.to_pylist()


@pytest.mark.parametrize("form", [".csv", ".csv.gz", ".parquet"])
def test_the_same_rows_give_the_same_bytes_whatever_the_name_and_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    batch = pa.record_batch({"id": ["a", "b"], "x": [0.5, None]})
    for name, now in (("one", 1e9), ("two", 2e9)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        with row_files.writing(tmp_path / name, form, batch.schema, dictionary=["id"]) as write:
            write(batch)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("form", [".csv", ".csv.gz"])
def test_lists_are_json_in_csv(tmp_path: Path, form: str) -> None:
    vectors = pa.array([[0.5, -1.25], [], None, [1e-7]], pa.list_(pa.float32()))
    batch = pa.record_batch({"id": ["a", "b", "c", "d"], "top": pa.array([[3, 1]] * 4), "vector": vectors})
    with row_files.writing(tmp_path / "a", form, batch.schema) as write:
        write(batch)
        write(batch.slice(3))
    content = (gzip.decompress if form == ".csv.gz" else bytes)((tmp_path / "a").read_bytes()).decode()
    rows = list(csv.DictReader(content.splitlines()))
    assert [json.loads(row["vector"]) for row in rows] == [[0.5, -1.25], [], None, [1e-7], [1e-7]]
    assert {row["top"] for row in rows} == {"[3, 1]"} and row_files.count(tmp_path / "a", form) == 5
