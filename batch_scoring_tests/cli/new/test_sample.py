"""A sample is read as its files will be: by the product's readers, its delimiter found."""

import gzip
import re
from pathlib import Path

import pytest

from batch_scoring.cli.new.sample import read
from batch_scoring.config.spec import Csv
from batch_scoring.errors import SampleError
from batch_scoring_tests.cli.new.conftest import Read, Write

ROWS = [{"id": f"k{n}", "x": n / 2, "word": " red " if n % 2 else ""} for n in range(6)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_of_a_csv_file_is_found_and_its_text_trimmed(sampled: Read, delimiter: str) -> None:
    sample = sampled(ROWS, delimiter=delimiter)
    assert (sample.csv.delimiter, sample.is_text, sample.unreadable, len(sample.rows)) == (delimiter, True, 0, 6)
    assert sample.rows["word"].to_pylist() == [None, "red"] * 3
    assert sample.rows["x"].to_pylist()[:2] == ["0.0", "0.5"]


def test_delimiters_within_quotes_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "a.csv.gz"
    file.write_bytes(gzip.compress(b'"id, of all, and, more";x\n1;2\n'))
    assert read(file).rows.column_names == ["id, of all, and, more", "x"]


def test_files_with_types_keep_them_and_name_their_nested_fields(sampled: Read) -> None:
    rows = [row | {"deep": {"a": 1}, "list": [1], "words": ["a"]} for row in ROWS]
    sample = sampled(rows, "a.jsonl")
    assert {name: str(sample.rows.schema.field(name).type) for name in sample.rows.column_names} == {
        "id": "string",
        "x": "double",
        "word": "string",
        "list": "list<element: double>",
    }
    assert sample.nested == ("deep", "words") and not sample.is_text
    sample = sampled(rows, "a.parquet")
    assert sample.rows.column_names == [*ROWS[0], "list"] and sample.nested == ("deep", "words")


def test_one_broken_line_does_not_hide_a_list_of_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": 1, "v": [1, 2]}\n{"id": 2, "v": [1, "a"]}\n{"id": 3, "v": [1.5, 2]}\n')
    sample = read(file)
    assert sample.rows["v"].to_pylist() == [[1.0, 2.0], [1.5, 2.0]] and sample.unreadable == 1


def test_rows_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,x\n1,2\n3\n4,5\n")
    assert (read(file).unreadable, len(read(file).rows)) == (1, 2)
    assert read(file).why_unreadable.startswith("line 3: ")


DIALECTS = {
    "line breaks in cells": ('id,x\n1,"two\nlines"\n2,one\n', {"newlines": True}, ["two\nlines", "one"]),
    "quotes as text": ('id,x\n1,5" wide\n2,"a" or "b"\n', {"quote": "none"}, ['5" wide', '"a" or "b"']),
    "neither": ('id,x\n1,"a, b"\n2,c\n', {}, ["a, b", "c"]),
}


@pytest.mark.parametrize("case", DIALECTS)
def test_the_dialect_is_the_one_that_loses_the_fewest_rows(tmp_path: Path, case: str) -> None:
    content, settings, expected = DIALECTS[case]
    (tmp_path / "a.csv").write_text(content)
    sample = read(tmp_path / "a.csv")
    assert sample.rows["x"].to_pylist() == expected and sample.unreadable == 0
    assert sample.csv == Csv(**settings)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.csv", None, "is not a file; expected one that ends in .parquet, .csv,"),
        ("a.txt", b"x", "its name ends in none of .parquet"),
        ("_a.csv", b"id\n1\n", "names that begin with '_' or '.' are not data; rename it"),
        ("a.csv", b"", "it is empty (0 bytes)"),
        ("a.csv", b"id,x\n", "no rows, and none can be read"),
        ("a.csv", b"id,x\n1\n2\n", "2 rows, and none can be read"),
        ("a.csv", b"id,x\n1,gr\xfcn\n", "1 cells of x are not UTF-8, the first one in row 1; convert the file"),
        ("a.parquet", b"PAR1", "is not a complete Parquet file"),
    ],
)
def test_what_is_no_sample_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SampleError, match=re.escape(reason)) as refused:
        read(tmp_path / name)
    assert "\n" not in str(refused.value) and refused.value.exit_code == 2


def test_a_link_is_followed(write: Write, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link.csv"
    link.parent.mkdir()
    link.symlink_to(write(ROWS))
    assert len(read(link).rows) == 6
