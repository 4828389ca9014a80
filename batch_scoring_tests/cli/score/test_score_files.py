"""Files scored without a day: every row is accounted for, the output is whole or as it was, each fault is one line."""

import errno
import gzip
import io
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pandera.pandas  # noqa: F401  (a child shall find it imported)
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from batch_scoring.cli.main import main
from batch_scoring.cli.score import score_files as adhoc
from batch_scoring.cli.score.score_files import LINEAGE, ScoreRequest
from batch_scoring.config.loader import find_pipeline
from batch_scoring.errors import TakenError
from batch_scoring.ingest.formats.rows import Rows
from batch_scoring.ingest.row_validator import RowValidator, ValidatedRows
from batch_scoring.ingest.schema.contract import ValidationResult
from batch_scoring.runtime import locks, signals
from batch_scoring.storage import staged_files
from batch_scoring.storage.folders import LocalFolder
from batch_scoring_tests.reliability.processes import Site, site_of
from batch_scoring_tests.tiny import DAY, TinyProject

SERVER = multiprocessing.get_context("forkserver")
SCORES = ["id", "prediction", "prediction_proba", "prob_class_0", "prob_class_1", "model_version"]


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of the test's own."""
    (tmp_path / "locks").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "locks"))


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    """Processes are forked from a server that imports while other tests run."""
    SERVER.set_forkserver_preload([__name__])
    forkserver.ensure_running()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def score(
    tiny: TinyProject, source: Path | str, target: Path | str, *, err: io.StringIO | None = None, **options: bool
) -> tuple[int, str, str]:
    """The exit code, and what stands on standard output and standard error."""
    out, err = io.StringIO(), err or io.StringIO()
    code = adhoc.run(tiny.pipeline, ScoreRequest(str(source), str(target), **options), out, err)
    return code, out.getvalue(), err.getvalue()


def put(file: Path, rows: pa.Table | str, *, age: float = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(rows, str):
        file.write_bytes(gzip.compress(rows.encode()) if file.suffix == ".gz" else rows.encode())
    elif file.suffix == ".parquet":
        pq.write_table(rows, file)
    else:
        sink = io.BytesIO()
        pyarrow.csv.write_csv(rows, sink)
        put(file, sink.getvalue().decode())
    stamp = time.time() - age
    os.utime(file, (stamp, stamp))
    return file


def read(file: Path) -> pa.Table:
    if file.name.endswith(".parquet"):
        return pq.read_table(file)
    return pyarrow.csv.read_csv(file)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file and folder below, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


BAD = """id,x,y,n,c
good1,1.5,2.5,1,red
good2,2.5,,2,mauve
retyped,1.5,2.5,1.5,red
beyond,1001,2.5,1,red
,1.5,2.5,1,red
short,1.5
infinite,inf,2.5,1,red
good1,7.5,2.5,1,red
raises,666,2.5,1,red
nan,555,2.5,1,red
good3,3.5,2.5,1,
"""


# what is scored


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_the_scores_are_those_of_a_day_bit_by_bit_and_the_same_again(
    tiny: TinyProject, tmp_path: Path, form: str
) -> None:
    rows = tiny.rows(300)
    put(tmp_path / f"in/a.{form}", rows)
    assert score(tiny, tmp_path / f"in/a.{form}", tmp_path / "one.parquet")[0] == 0
    assert score(tiny, tmp_path / "in", tmp_path / "two.parquet")[0] == 0
    one, two = read(tmp_path / "one.parquet"), read(tmp_path / "two.parquet")
    assert one.column_names == [*SCORES, "scored_at"]
    assert one.select(SCORES).equals(two.select(SCORES))
    assert one["id"].to_pylist() == rows["id"].to_pylist(), "in the order of the file"
    if form == "parquet":
        tiny.land(DAY, rows)
        tiny.run()
        day = tiny.read()
        scores = day.select(SCORES)
        assert one.select(SCORES).cast(scores.schema).equals(scores)  # Delta's columns may hold nulls, the file's not
        assert one.schema.field("scored_at").type == day.schema.field("scored_at").type


def test_every_row_is_scored_or_in_the_quarantine_with_its_reason_once(tiny: TinyProject, tmp_path: Path) -> None:
    source = put(tmp_path / "in/a.csv", BAD)
    code, out, err = score(tiny, source, tmp_path / "out.parquet")
    assert (code, err) == (0, "")
    assert read(tmp_path / "out.parquet")["id"].to_pylist() == ["good1", "good2", "good3"]
    rejected = read(tmp_path / "out.quarantine.parquet").to_pylist()
    assert {(row["id"], row["stage"], row["rule"], row["column"], row["row_number"]) for row in rejected} == {
        ("retyped", "schema", "is_int64", "n", 3),
        ("beyond", "rule", "less_than_or_equal_to(1000)", "x", 4),
        (None, "rule", "not_nullable", "id", 5),
        (None, "read", "cells_match_header", "", 6),
        ("infinite", "rule", "is_finite", "x", 7),
        ("good1", "duplicate", "key_is_unique", "id", 8),
        ("raises", "score", "network_raises", "", 9),
        ("nan", "score", "output_is_finite", "", 10),
    }
    assert {row["source_file"] for row in rejected} == {"a.csv"}
    assert json.loads(rejected[0]["raw"]) is not None
    lines = [line.split() for line in out.splitlines()]
    assert ["rows", "in", "11"] in lines and ["scored", "3"] in lines and ["quarantined", "8"] in lines
    assert "1  rule  x: less_than_or_equal_to(1000)  (a.csv row 4: 1001.0)" in out
    assert 'unknown      c: "mauve" (1 rows)' in out
    assert f"predictions  {tmp_path}/out.parquet" in out and f"quarantine   {tmp_path}/out.quarantine.parquet" in out
    assert len(out.splitlines()) < 25, "a screen"


def test_of_equal_keys_the_newest_file_is_scored_and_files_in_folders_are_found(
    tiny: TinyProject, tmp_path: Path
) -> None:
    put(tmp_path / "in/z-old.parquet", tiny.rows(10), age=100)
    put(tmp_path / "in/deep/er/a-new.csv", tiny.rows(10, start=5))
    put(tmp_path / "in/_not/data.parquet", "x")
    put(tmp_path / "in/.hidden", "x")
    code, out, _ = score(tiny, tmp_path / "in", f"{tmp_path}/out/", as_json=True)
    assert code == 0
    found = read(tmp_path / "out/predictions.parquet")["id"].to_pylist()
    assert found == [f"k{n:07d}" for n in (*range(5, 15), *range(5))], "newest file first"
    rejected = read(tmp_path / "out/quarantine.parquet").to_pylist()
    assert {(row["source_file"], row["rule"]) for row in rejected} == {("z-old.parquet", "key_is_unique")}
    summary = json.loads(out)
    assert json.loads((tmp_path / "out/summary.json").read_text()) == summary
    assert (summary["rows_in"], summary["rows_scored"], summary["rows_quarantined"]) == (20, 15, 5)
    first = {"file": "z-old.parquet", "row_number": 6, "key": "k0000005", "value": "k0000005"}
    assert summary["quarantined"] == [{"stage": "duplicate", "reason": "id: key_is_unique", "rows": 5, "first": first}]
    assert summary["input"]["files"] == 2 and summary["model"]["version"] == "v1" and summary["written"] is True


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


def test_a_parquet_output_says_which_command_wrote_it_with_which_model(tiny: TinyProject, tmp_path: Path) -> None:
    put(tmp_path / "a.csv", BAD)
    assert score(tiny, tmp_path / "a.csv", tmp_path / "out.parquet")[0] == 0
    said = [
        json.loads(pq.read_metadata(tmp_path / name).metadata[LINEAGE])
        for name in ("out.parquet", "out.quarantine.parquet")
    ]
    assert said[0] == said[1], "they belong together"
    assert said[0]["model_version"] == "v1" and said[0]["pipeline"] == tiny.name
    assert said[0]["code_version"] == tiny.pipeline.scoring_code


# what stops it


def test_more_rejected_rows_than_the_spec_allows_write_nothing_and_say_why(tiny: TinyProject, tmp_path: Path) -> None:
    tiny.spec["checks"]["quarantine_is_small"] = {"blocking_share": 0.5}
    tiny.write_spec()
    source = put(tmp_path / "in/a.csv", BAD)
    code, out, err = score(tiny, source, tmp_path / "new/out.parquet")
    assert code == 1 and "output       nothing is written\n" in out and "x: less_than_or_equal_to(1000)" in out
    assert err.startswith("batch-scoring: quarantine_is_small: 8 of 11 rows (72.7%)")
    assert not (tmp_path / "new").exists(), "nor the folder"


@pytest.mark.parametrize(("lost", "code"), [(6, 1), (4, 0)])
def test_rows_that_could_not_be_scored_count_as_lost_too(
    tiny: TinyProject, tmp_path: Path, lost: int, code: int
) -> None:
    tiny.spec["checks"]["quarantine_is_small"] = {}
    tiny.write_spec()
    rows = tiny.rows(10).set_column(1, "x", pa.array([555.0] * lost + [1.0] * (10 - lost)))
    found, out, err = score(tiny, put(tmp_path / "in/a.parquet", rows), tmp_path / "out.parquet")
    told = f"quarantine_is_small: {lost} of 10 rows ({lost}0.0%) are in the quarantine, expected at most 3 rows"
    assert found == code and told in (err if code else out)
    assert (tmp_path / "out.parquet").exists() == (code == 0)
    assert code or f"warning      {told}" in out


@pytest.mark.parametrize(
    ("rows", "check"),
    [
        ("id,x,y,n,c\na,9999,1,1,red\n", "some_rows_are_accepted: 0 of 1 rows are accepted; reasons: x: less_than"),
        ("id,x,y,n,c\n", "some_rows_are_accepted: 0 of 0 rows are accepted; reasons: no rows at all"),
        (
            "id,x,y,n,c\na,666,1,1,red\n",
            "scores_are_probabilities: 0 of 0 scored rows are not probabilities; the model",
        ),
    ],
)
def test_without_a_scored_row_nothing_is_written(tiny: TinyProject, tmp_path: Path, rows: str, check: str) -> None:
    source = put(tmp_path / "in/a.csv", rows)
    code, out, err = score(tiny, source, tmp_path / "out.csv")
    assert code == 1 and "nothing is written" in out and f"batch-scoring: {check}" in err
    assert not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".*"))


def test_a_check_that_the_spec_lets_block_stops_and_one_that_warns_is_told(tiny: TinyProject, tmp_path: Path) -> None:
    source = put(tmp_path / "a.parquet", tiny.rows(50))
    tiny.spec["checks"]["categories_are_known"] = {"share": 0.01}
    tiny.write_spec()
    code, out, err = score(tiny, source, tmp_path / "out.parquet")
    assert (code, err) == (0, "") and "warning      categories_are_known: at most" in out
    tiny.spec["checks"]["categories_are_known"]["blocking"] = True
    tiny.write_spec()
    assert score(tiny, source, tmp_path / "other.parquet")[0] == 1
    tiny.spec["checks"] = {"metrics_meet_threshold": {"least": {"auc": 0.9}, "blocking": True}}
    tiny.write_spec()
    code, _, err = score(tiny, source, tmp_path / "other.parquet")
    assert code == 1 and "metrics_meet_threshold: 0 of 1 metrics meet their threshold; auc is not recorded" in err
    assert not (tmp_path / "other.parquet").exists()


@pytest.mark.parametrize("column", ["numbers", "accepted"])
def test_a_row_that_is_lost_between_reading_and_writing_stops_it(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    source = put(tmp_path / "a.parquet", tiny.rows(50))
    whole = RowValidator.admit

    def loses(self: RowValidator, block: Rows, result: ValidationResult, file: str) -> ValidatedRows:
        validated = whole(self, block, result, file)
        numbers = np.array([1, *validated.numbers[:-1]]) if column == "numbers" else validated.numbers[:-1]
        accepted = validated.accepted if column == "numbers" else validated.accepted.slice(0, 49)
        return ValidatedRows(accepted, numbers, (), validated.block, validated.reasons, validated.key, validated.file)

    monkeypatch.setattr(RowValidator, "admit", loses)
    code, _, err = score(tiny, source, tmp_path / "out.parquet")
    assert code == 1 and "rows_are_conserved: 50 rows read," in err and "rows are lost or doubled of a.parquet" in err
    assert not (tmp_path / "out.parquet").exists()


# what is one line


def test_each_wrong_command_is_one_line_and_2(tiny: TinyProject, tmp_path: Path) -> None:
    source = put(tmp_path / "in/a.parquet", tiny.rows(10))
    (tmp_path / "empty").mkdir()
    put(tmp_path / "notes.txt", "x")
    put(tmp_path / "a.quarantine.csv", tiny.rows(5))
    put(tmp_path / "afile", "x")
    churn = find_pipeline("customer_churn")
    output = f"{tiny.pipeline.output.uri}/tables/predictions/x.parquet"
    for source_uri, target, says in (
        (tmp_path / "nowhere", "o.csv", "nowhere: nothing is there; expected a file or folder of .parquet"),
        (tmp_path / "empty", "o.csv", "empty: no data file is in it"),
        (tmp_path / "notes.txt", "o.csv", "its name ends in none of .parquet, .csv.gz, .csv"),
        ("", "o.csv", "'': it is empty; expected a path or s3://bucket/prefix"),
        ("gs://bucket/in", "o.csv", "unsupported storage; expected a path or s3://bucket/prefix"),
        ("s3://", "o.csv", "it names no bucket"),
        (source, tmp_path / "o.json", "unknown kind of file; expected .parquet, .csv.gz, .csv, or a folder"),
        (source, tmp_path / "o.quarantine.csv", "is the name of the rows that another output rejects"),
        (source, tmp_path / "afile", "is a file that ends in none of"),
        (source, source, "--output would write over --input"),
        (tmp_path / "a.quarantine.csv", tmp_path / "a.csv", "--output would write over --input"),
        (tmp_path / "in", tmp_path / "in/o.csv", "lies in --input, where the next command would read it"),
        (tmp_path / "in", f"{tmp_path}/in/../in/o/", "lies in --input"),
        (source, output, f"lies in the tables of {tiny.name}"),
        (source, f"{tiny.pipeline.landing.uri}/dt={DAY}/o.csv", "lies in the landing folder"),
        (source, f"{tiny.pipeline.bundle.uri}/golden.parquet", f"lies in the model of {tiny.name}"),
        (source, f"{churn.landing.uri}/dt={DAY}/o.csv", "lies in the landing folder of customer_churn"),
        (source, f"{churn.output.uri}/tables/predictions/o.csv", "lies in the tables of customer_churn"),
    ):
        before = tree(tmp_path)
        code, out, err = score(tiny, source_uri, target if str(target).startswith("/") else tmp_path / str(target))
        assert (code, out) == (2, "") and says in err, err
        assert err.startswith("batch-scoring: ") and err.count("\n") == 1
        assert tree(tmp_path) == before


def test_an_unknown_pipeline_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--pipeline", "nix", "--input", "a.csv", "--output", "b.csv"]) == 2
    assert capsys.readouterr().err.startswith("batch-scoring: no pipeline 'nix'; known pipelines: ")


def test_each_input_that_cannot_be_scored_is_one_line_and_1(tiny: TinyProject, tmp_path: Path) -> None:
    whole = put(tmp_path / "whole.parquet", tiny.rows(1000)).read_bytes()
    put(tmp_path / "in/b.csv", tiny.rows(10))
    (tmp_path / "in/a.parquet").write_bytes(whole[:-100])
    put(tmp_path / "lacks.csv", "id,x,n\na,1,1\n")
    put(tmp_path / "open.csv", 'id,x,y,n,"c\na,1,1,1,red\n')
    put(tmp_path / "nothing.csv", "")
    put(tmp_path / "foreign/a.csv", tiny.rows(5))
    put(tmp_path / "foreign/readme.txt", "x")
    put(tmp_path / "text.parquet", tiny.rows(5).set_column(1, "x", pa.array(["1"] * 5)))
    for source, says in (
        ("in", "in/a.parquet (8"),
        ("lacks.csv", "has no column y, c, which"),
        ("open.csv", "its header: a quote is not closed on its line"),
        ("nothing.csv", "it is empty (0 bytes)"),
        ("foreign", "its name ends in none of"),
        ("text.parquet", "column x is string"),
    ):
        before = tree(tmp_path)
        code, out, err = score(tiny, tmp_path / source, tmp_path / "new/out.parquet")
        assert (code, out) == (1, "") and says in err, err
        assert str(tmp_path / source) in err and err.endswith("; nothing is written\n") and err.count("\n") == 1
        assert not (tmp_path / "new").exists() and before.items() <= tree(tmp_path).items()


def test_a_damaged_model_and_an_output_that_cannot_be_written_are_told(tiny: TinyProject, tmp_path: Path) -> None:
    source = put(tmp_path / "a.parquet", tiny.rows(10))
    put(tmp_path / "file", "x")
    code, out, err = score(tiny, source, tmp_path / "file/below/out.parquet")
    assert (code, out) == (1, "") and str(tmp_path / "file") in err and err.count("\n") == 1
    weights = Path(tiny.pipeline.bundle.uri, "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    code, out, err = score(tiny, source, tmp_path / "out.parquet")
    assert (code, out) == (1, "") and "model.safetensors has sha256" in err and not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "not enough memory: a smaller scoring.batch_rows in the spec needs less; nothing"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "not enough memory: "),
        (pa.ArrowInvalid("no such\nthing"), "ArrowInvalid: no such thing (test_score_files.py, line "),
        (KeyError("x"), "KeyError: 'x' (test_score_files.py, line "),
    ],
)
def test_an_error_that_nobody_has_foreseen_is_one_line_and_1(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    def validate(*_arguments: object, **_options: object) -> ValidatedRows:
        raise error

    monkeypatch.setattr(RowValidator, "validate", validate)
    code, out, err = score(tiny, put(tmp_path / "a.csv", BAD), tmp_path / "out.csv")
    assert (code, out, err.count("\n")) == (1, "", 1) and err.startswith(f"batch-scoring: {says}")
    assert err.endswith("; nothing is written\n") and not list(tmp_path.glob("out*"))


# old or new


def test_an_output_is_replaced_only_with_overwrite_and_leaves_no_old_quarantine(
    tiny: TinyProject, tmp_path: Path
) -> None:
    bad, good = put(tmp_path / "bad.csv", BAD), put(tmp_path / "good.parquet", tiny.rows(20))
    target = tmp_path / "out/scores.parquet"
    assert score(tiny, bad, target)[0] == 0
    before = tree(tmp_path / "out")
    code, out, err = score(tiny, good, target)
    assert (code, out) == (2, "") and "exists already; nothing is written: --overwrite replaces it" in err
    assert tree(tmp_path / "out") == before
    assert score(tiny, good, target, overwrite=True)[0] == 0
    assert list(tree(tmp_path / "out")) == ["scores.parquet"] and read(target).num_rows == 20
    target.unlink()
    put(tmp_path / "out/scores.quarantine.parquet", "somebody's")
    assert score(tiny, bad, target)[0] == 2, "also where only the other file is there"


def test_an_output_that_comes_while_another_is_scored_stands(tiny: TinyProject, tmp_path: Path) -> None:
    source, target = put(tmp_path / "a.csv", BAD), tmp_path / "out.parquet"
    dawdle(tiny, 0.3)
    threading.Timer(0.2, target.write_bytes, [b"somebody else's"]).start()
    code, out, err = score(tiny, source, target)
    assert (code, out) == (2, "") and "was written by another process meanwhile" in err
    assert target.read_bytes() == b"somebody else's" and not (tmp_path / "out.quarantine.parquet").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("target", ["out.parquet", "new/out.csv.gz", "standing.parquet"])
def test_ctrl_c_and_kill_leave_no_output_and_the_old_one_untouched(
    tiny: TinyProject, tmp_path: Path, number: signal.Signals, target: str
) -> None:
    put(tmp_path / "standing.parquet", tiny.rows(3))
    source, said = put(tmp_path / "in/a.csv", BAD), tmp_path / "said"
    said.touch()
    before = tree(tmp_path)
    arguments = (site_of(tiny), tmp_path, source, tmp_path / target, said)
    child = SERVER.Process(target=score_elsewhere, args=arguments, daemon=True)
    child.start()
    wait_until(lambda: list((tmp_path / target).parent.glob(".*.tmp")))
    os.kill(child.pid or 0, number)
    child.join(10)
    assert (child.exitcode, said.read_text()) == (128 + number, "batch-scoring: interrupted; nothing is written\n")
    said.write_text("")
    after = {name: data for name, data in tree(tmp_path).items() if "locks/" not in name and "packages" not in name}
    assert after == {name: before[name] for name in after} and len(after) >= 4


@pytest.mark.parametrize(
    ("broken", "written"),
    [("out.parquet", "out.quarantine.parquet is written, {}/out.parquet is not\n"), ("out.quarantine.parquet", "")],
)
def test_what_is_written_of_an_output_that_cannot_be_replaced_is_said(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, written: str
) -> None:
    source = put(tmp_path / "a.csv", BAD)
    assert score(tiny, source, tmp_path / "out.parquet")[0] == 0
    whole, before = Path.replace, tree(tmp_path)

    def replace(self: Path, target: Path) -> Path:
        if target.name == broken:
            raise OSError(errno.EIO, "Input/output error", str(target))
        return whole(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    code, out, err = score(tiny, source, tmp_path / "out.parquet", overwrite=True)
    assert (code, out) == (1, "") and "Input/output error" in err and err.count("\n") == 1
    assert err.endswith(written.format(tmp_path) or "; nothing is written\n")
    assert (tree(tmp_path)["out.quarantine.parquet"] != before["out.quarantine.parquet"]) == bool(written)
    assert tree(tmp_path)["out.parquet"] == before["out.parquet"]


def test_an_old_quarantine_that_may_not_be_removed_is_named_and_the_output_is_written(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = put(tmp_path / "bad.csv", BAD), put(tmp_path / "good.parquet", tiny.rows(20))
    assert score(tiny, bad, tmp_path / "out.parquet")[0] == 0

    def remove(self: LocalFolder, path: str) -> None:
        raise PermissionError(f"{path}: access denied")

    monkeypatch.setattr(LocalFolder, "remove", remove)
    code, _, err = score(tiny, good, tmp_path / "out.parquet", overwrite=True)
    assert code == 0 and read(tmp_path / "out.parquet").num_rows == 20
    assert f"{tmp_path}/out.quarantine.parquet belongs to an older output and cannot be removed" in err
    (tmp_path / "out.quarantine.parquet").unlink()
    assert score(tiny, good, tmp_path / "out.parquet", overwrite=True)[2] == "", "there is none"


def test_a_scratch_file_that_cannot_be_removed_is_no_failure_of_an_output_that_is_written(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, whole = put(tmp_path / "a.csv", BAD), Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".tmp":
            raise PermissionError(errno.EPERM, "Operation not permitted", str(self))
        whole(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert score(tiny, source, tmp_path / "out.parquet")[::2] == (0, "")
    assert read(tmp_path / "out.parquet").num_rows == 3


def test_a_signal_that_comes_while_the_output_is_shown_comes_too_late(tiny: TinyProject, tmp_path: Path) -> None:
    source, said = put(tmp_path / "a.csv", BAD), tmp_path / "said"
    arguments = (site_of(tiny), tmp_path, source, tmp_path / "out.parquet", said, True)
    child = SERVER.Process(target=score_elsewhere, args=arguments, daemon=True)
    child.start()
    child.join(30)
    assert child.exitcode == 0 and read(tmp_path / "out.parquet").num_rows == 3


def test_where_there_are_no_hard_links_an_output_is_written_and_none_is_overwritten(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = put(tmp_path / "a.csv", BAD), tmp_path / "out/x.parquet"

    def link(_source: Path, _target: Path) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    assert score(tiny, source, target)[0] == 0
    assert tree(tmp_path / "out").keys() == {"x.parquet", "x.quarantine.parquet"} and read(target).num_rows == 3
    place = LocalFolder(str(tmp_path / "out"))
    before = tree(tmp_path / "out")
    with staged_files.staged(place, "x.parquet") as file, pytest.raises(TakenError):
        file.scratch.write_bytes(b"other")
        file.show(replaces=False)
    monkeypatch.setattr(Path, "replace", link)
    with staged_files.staged(place, "y") as file, pytest.raises(OSError, match="not supported"):
        file.show(replaces=False)
    assert tree(tmp_path / "out") == before, "no empty file either"


def dawdle(tiny: TinyProject, seconds: float) -> None:
    """Let a forward pass take a while."""
    network = (tiny.folder / "network.py").read_text()
    nap = f"        import time; time.sleep({seconds})\n        result ="
    tiny.write_code(network=network.replace("        result =", nap))


# one at a time


def test_the_second_writer_is_refused_at_once_and_told_of_the_first(tiny: TinyProject, tmp_path: Path) -> None:
    source = put(tmp_path / "a.csv", BAD)
    (tmp_path / "link").symlink_to(tmp_path)
    with locks.hold("output", f"{tmp_path}/out/predictions.parquet"):
        for target in (f"{tmp_path}/out", tmp_path / "out/predictions.parquet", tmp_path / "link/out"):
            code, out, err = score(tiny, source, target)
            assert (code, out) == (2, "") and f"process {os.getpid()} is working on it; add --wait" in err
        assert score(tiny, source, tmp_path / "other.parquet")[0] == 0
    assert score(tiny, source, f"{tmp_path}/out")[0] == 0


def test_a_killed_writer_leaves_no_output_and_whoever_waits_goes_on(tiny: TinyProject, tmp_path: Path) -> None:
    source, target = put(tmp_path / "in/a.csv", BAD), tmp_path / "out/scores.parquet"
    site = site_of(tiny)
    child = SERVER.Process(target=score_elsewhere, args=(site, tmp_path, source, target), daemon=True)
    child.start()
    wait_until(lambda: list(tmp_path.glob("out/.*.tmp")))
    err = Terminal()
    threading.Timer(0.5, child.kill).start()
    code, out, said = score(tiny, source, target, err=err, wait=True)
    child.join(10)
    assert child.exitcode == -signal.SIGKILL
    assert (code, f"process {child.pid} is working on it; waiting until it ends" in said) == (0, True), said
    assert {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")} == {
        "scores.parquet",
        "scores.quarantine.parquet",
    }
    assert "rows in      11\n" in out


def score_elsewhere(
    site: Site, place: Path, source: Path, target: Path, said: Path | None = None, hears_late: bool = False
) -> None:
    """The command, in a process that hangs in its first forward pass of rows.

    `said`: where it says what ends it; `hears_late`: it does not hang, and is told to end while it removes a scratch
    file after the output is shown.
    """
    if said:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
        signals.watch("batch-scoring")
    unlink = Path.unlink

    def told(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".tmp":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        unlink(self, missing_ok=missing_ok)

    if hears_late:
        Path.unlink = told  # type: ignore[method-assign]
    tempfile.tempdir = str(place / "locks")
    torch.set_num_threads(1)
    pipeline = site.pipeline()
    network = pipeline.load(pipeline.spec.model.network)
    forward = network.forward

    def hangs(self: torch.nn.Module, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        if list(target.parent.glob(".*.tmp")) and not hears_late:
            time.sleep(60)
        return forward(self, numeric, categorical)

    network.forward = hangs
    request = ScoreRequest(str(source), str(target), overwrite=said is not None)
    sys.exit(adhoc.run(pipeline, request, io.StringIO(), io.StringIO()))


def wait_until(holds: Callable[[], object]) -> None:
    limit = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


# how far it is


def test_a_terminal_shows_a_bar_that_is_gone_at_the_end_and_a_file_none(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_scoring.runtime.progress._REDRAWN", 0.0)
    for number in range(4):
        put(tmp_path / f"in/{number}.csv.gz", tiny.rows(50, start=50 * number))
    err = Terminal()
    assert score(tiny, tmp_path / "in", tmp_path / "one.csv", err=err)[0] == 0
    drawn = [line for line in err.getvalue().split("\r") if "rows/s" in line]
    assert len(drawn) == 4 and " 100%  200 rows" in drawn[-1] and "█" * 30 in drawn[-1] and "░" in drawn[0]
    assert err.getvalue().endswith("\r") and "\n" not in err.getvalue()
    assert score(tiny, tmp_path / "in", tmp_path / "two.csv")[2] == ""


def test_an_input_may_be_a_link_but_what_it_holds_may_not_lead_out_of_it(tiny: TinyProject, tmp_path: Path) -> None:
    exported = put(tmp_path / "exports" / "2024.csv", tiny.rows(5))
    (tmp_path / "latest.csv").symlink_to(exported)
    (tmp_path / "latest").symlink_to("exports")
    for name in ("latest.csv", "latest"):
        code, _, err = score(tiny, tmp_path / name, tmp_path / f"out of {name}" / "scores.csv")
        assert code == 0, err
        assert read(tmp_path / f"out of {name}" / "scores.csv").num_rows == 5
    (tmp_path / "exports" / "x.csv").symlink_to("/etc/passwd")
    code, _, err = score(tiny, tmp_path / "exports", tmp_path / "scores.csv")
    assert (
        code != 0 and "exports/x.csv: it is a link to '/etc/passwd', which leads out of" in err and "root:" not in err
    )


def test_an_output_that_is_no_file_stands_there_already(tiny: TinyProject, tmp_path: Path) -> None:
    source = put(tmp_path / "rows.csv", tiny.rows(5))
    os.mkfifo(tmp_path / "scores.csv")
    code, _, err = score(tiny, source, tmp_path / "scores.csv")
    assert code != 0 and "exists already" in err
