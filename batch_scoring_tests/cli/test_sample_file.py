"""Samples in CSV have the types of the schema; rows that it rejects are left out and counted."""

import gzip
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from batch_scoring.cli.sample_file import read_outputs, read_sample
from batch_scoring.errors import BatchScoringError
from batch_scoring_tests.tiny import TinyProject


def sample(tiny: TinyProject, rows: int = 70) -> pa.Table:
    return tiny.rows(rows).append_column("dt", pa.array([date(2024, 3, 1)] * rows))


def refusal(tiny: TinyProject, file: Path) -> str:
    with pytest.raises(BatchScoringError) as raised:
        read_sample(file, tiny.pipeline, print)
    return str(raised.value)


@pytest.mark.parametrize("name", ["s.csv", "s.csv.gz"])
def test_csv_gives_the_table_that_parquet_gives(tiny: TinyProject, tmp_path: Path, name: str) -> None:
    pq.write_table(sample(tiny), tmp_path / "parquet")
    text = pa.BufferOutputStream()
    pyarrow.csv.write_csv(sample(tiny), text)
    data = text.getvalue().to_pybytes()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    notes: list[str] = []
    found = read_sample(tmp_path / name, tiny.pipeline, notes.append)
    assert notes == []
    expected = read_sample(tmp_path / "parquet", tiny.pipeline, notes.append)
    assert found.select(expected.column_names).cast(expected.schema).equals(expected)


def test_keys_that_look_like_numbers_stay_texts(tiny: TinyProject, tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("id,x,y,n,c,dt,more\n007,1,,2,red, 2024-03-01 ,9\n")
    (row,) = read_sample(tmp_path / "s.csv", tiny.pipeline, print).to_pylist()
    assert row == {"id": "007", "x": 1.0, "y": None, "n": 2, "c": "red", "dt": date(2024, 3, 1)}


def test_rows_that_the_schema_rejects_are_left_out_and_counted(tiny: TinyProject, tmp_path: Path) -> None:
    lines = ["id,x,y,n,c,dt", *(f"k{n},1,2,3,red,2024-03-01" for n in range(5)), "k5,9999,2,3,red,2024-03-01", "k6,1"]
    (tmp_path / "s.csv").write_text("\n".join(lines) + "\n")
    notes: list[str] = []
    assert read_sample(tmp_path / "s.csv", tiny.pipeline, notes.append).num_rows == 5
    assert notes == [
        f"2 of 7 rows of {tmp_path}/s.csv are not as the schema says and were left out, first row 6: "
        "less_than_or_equal_to(1000) of column x"
    ]


def test_json_lines_have_the_types_of_the_schema_too(tiny: TinyProject, tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text(
        '{"id": "007", "x": 1, "n": 2, "c": "red", "dt": "2024-03-01", "more": []}\n'
        '{"id": "008", "x": "?", "n": 2, "c": "red", "dt": "2024-03-01"}\n'
    )
    notes: list[str] = []
    (row,) = read_sample(tmp_path / "s.jsonl", tiny.pipeline, notes.append).to_pylist()
    assert row == {"id": "007", "x": 1.0, "y": None, "n": 2, "c": "red", "dt": date(2024, 3, 1)}
    assert notes[0].startswith(f"1 of 2 rows of {tmp_path}/s.jsonl are not as the schema says and were left out")


def test_what_is_not_a_sample_is_an_error_that_names_it(tiny: TinyProject, tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("id,x\nk,1\n")
    assert f"{tmp_path}/s.csv has no column y, n, c" in refusal(tiny, tmp_path / "s.csv")
    (tmp_path / "s.csv").write_text("id,x,y,n,c,dt\nk,1,2,3,red,yesterday\n")
    assert "dt is not a day, such as 2024-01-31, in every row" in refusal(tiny, tmp_path / "s.csv")
    assert "nowhere.csv does not exist" in refusal(tiny, tmp_path / "nowhere.csv")
    (tmp_path / "s").write_text("id,x\nk,1\n")
    assert "is not a readable Parquet file" in refusal(tiny, tmp_path / "s")


def test_outputs_in_csv_have_the_keys_type(tiny: TinyProject, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("id,dt,prob_class_1\n007,2024-03-01,0.25\n")
    assert read_outputs(tmp_path / "e.csv", tiny.pipeline).to_pylist() == [
        {"id": "007", "dt": date(2024, 3, 1), "prob_class_1": 0.25}
    ]
    (tmp_path / "e.csv").write_text("id,dt,prob_class_1\n007,soon,0.25\n")
    with pytest.raises(BatchScoringError, match="is not a readable CSV file"):
        read_outputs(tmp_path / "e.csv", tiny.pipeline)
