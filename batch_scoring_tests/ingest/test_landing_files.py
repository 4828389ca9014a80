import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_scoring.config.spec import Csv
from batch_scoring.errors import FileChangedError, UnreadableFileError
from batch_scoring.ingest import landing_files
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring_tests.landed import DAY, land, read


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path / "landing"))


# files


def test_data_files_are_those_of_the_day_whose_names_do_not_begin_with_a_dot_or_an_underscore(
    folder: LocalFolder,
) -> None:
    for path in (
        "dt=2024-03-04/b.csv",
        "dt=2024-03-04/a.parquet",
        "dt=2024-03-04/sub/c.csv",
        "dt=2024-03-04/notes.txt",
    ):
        folder.put(path, b"x")
    for path in ("dt=2024-03-04/_SUCCESS", "dt=2024-03-04/.a.tmp", "dt=2024-03-04/_tmp/a.csv", "dt=2024-03-05/a.csv"):
        folder.put(path, b"x")
    assert [file.path.removeprefix("dt=2024-03-04/") for file in landing_files.list_day(folder, DAY)] == [
        "a.parquet",
        "b.csv",
        "notes.txt",
        "sub/c.csv",
    ]


def test_a_folder_that_a_person_reads_as_a_day_is_found(folder: LocalFolder) -> None:
    meant = ("2024-03-04", "dt=2024-3-4", "dt=20240304", "day=2024_03_04")
    for name in (*meant, "dt=2024-03-04", "dt=2024-03-05", "dt=2024-02-30", "dt=2024-03-04-old", "notes"):
        folder.put(f"{name}/a.csv", b"x")
    assert sorted(landing_files.namesakes(folder, DAY)) == sorted(f"{name}/" for name in meant)


def test_a_fingerprint_names_paths_versions_and_sizes_in_any_order(folder: LocalFolder) -> None:
    files = [land(folder, b"a\n1\n", "a.csv"), land(folder, b"a\n2\n", "b.csv")]
    fingerprint = landing_files.fingerprint(files)
    assert landing_files.fingerprint(reversed(files)) == fingerprint
    assert landing_files.fingerprint(files[:1]) != fingerprint
    pinned = [landing_files.inspect(folder, file, Csv()) for file in files]
    assert landing_files.fingerprint(pinned) == fingerprint
    assert landing_files.fingerprint([files[0], land(folder, b"a\n3\n", "b.csv")]) != fingerprint


def test_inspecting_a_file_counts_its_rows_and_names_its_columns(folder: LocalFolder) -> None:
    table = pa.table({"id": ["a", "b", "c"], "x": [1.0, 2.0, 3.0]})
    parquet = landing_files.inspect(folder, land(folder, table, "a.parquet"), Csv())
    assert (parquet.rows, parquet.columns) == (3, {"id": "string", "x": "double"})
    text = landing_files.inspect(folder, land(folder, b"id,x\na,1\nbroken\nb,2\n"), Csv())
    assert (text.rows, list(text.columns)) == (3, ["id", "x"])


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_file_that_is_replaced_is_not_read_as_the_pinned_one(folder: LocalFolder, name: str) -> None:
    def contents(value: str) -> bytes | pa.Table:
        return pa.table({"a": [value]}) if name.endswith("parquet") else f"a\n{value}\n".encode()

    file = land(folder, contents("one"), name)
    land(folder, contents("two"), name)
    with pytest.raises(FileChangedError, match=f"{name} has changed"):
        read(folder, file)


def test_a_file_that_is_replaced_while_it_is_read_is_noticed_at_the_end(folder: LocalFolder) -> None:
    file = land(folder, b"a\n1\n")
    with pytest.raises(FileChangedError), landing_files.open_rows(folder, file, Csv()) as rows:
        assert [block.batch.to_pylist() for block in rows.read(0, 10)] == [[{"a": b"1"}]]
        land(folder, b"a\n2\n")


UNREADABLE = {
    "nothing": ("a.csv", b"", r"a.csv \(0 bytes\) cannot be scored: it is empty"),
    "no header": ("a.csv", b"\n\n", r"a.csv \(2 bytes\) cannot be scored: it has no header line: upload it"),
    "another kind": (
        "a.txt",
        b"id\n1\n",
        "its name ends in none of .parquet, .csv, .csv.gz, .jsonl, .jsonl.gz, .ndjson, .ndjson.gz; if it is one of "
        "these, rename it; if it is not data, ren",
    ),
    "column twice": ("a.csv", b"id,x,x\n1,2,3\n", "it has more than one column 'x'; expected distinct names: rename"),
    "no name twice": ("a.csv", b"id,,\n1,,\n", "it has more than one column ''; expected distinct names: rename or"),
    "header in latin-1": ("a.csv", b"id,gr\xf6\xdfe\n1,2\n", "0xf6 in position 2: .*; its header must be UTF-8"),
    "UTF-16": ("a.csv", "id,x\n1,2\n".encode("utf-16"), "its header must be UTF-8"),
    "open quote in the header": (
        "a.csv",
        b'id,"x\n1,2\n',
        "its header: a quote is not closed on its line; .*; correct the",
    ),
    "not gzipped": ("a.csv.gz", b"id,x\n1,2\n", "it is not compressed, but its name ends in .gz: upload it again"),
    "truncated gzip": ("a.csv.gz", gzip.compress(b"id,x\n1,2\n" * 99)[:-9], "Truncated compressed stream; it may be"),
    "no Parquet": (
        "a.parquet",
        b"id,x\n1,2\n",
        r"a.parquet \(9 bytes\) is not a complete Parquet file: .*; it may be",
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_is_no_whole_table_is_refused_by_name_with_what_to_do(folder: LocalFolder, case: str) -> None:
    name, content, message = UNREADABLE[case]
    with pytest.raises(UnreadableFileError, match=message) as caught:
        landing_files.inspect(folder, land(folder, content, name), Csv())
    assert str(caught.value).startswith(f"{folder.uri}/dt={DAY}/{name} (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["head", "middle", "tail"])
def test_a_damaged_parquet_file_is_refused_when_it_is_read(folder: LocalFolder, place: str) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": [str(n) for n in range(3000)]}), sink)
    content = bytearray(sink.getvalue())
    start = {"head": 4, "middle": len(content) // 2, "tail": len(content) - 60}[place]
    content[start : start + 50] = b"\xff" * 50
    with pytest.raises(UnreadableFileError, match=r"is not a complete Parquet file: .*: upload it again"):
        read(folder, land(folder, bytes(content), "a.parquet"))


def test_a_name_with_a_line_break_stays_one_of_a_message(folder: LocalFolder) -> None:
    file = land(folder, b"", "a\nb.csv")
    with pytest.raises(UnreadableFileError, match=r"/a\\u000ab.csv \(0 bytes\) cannot be scored: it is empty"):
        landing_files.inspect(folder, file, Csv())
