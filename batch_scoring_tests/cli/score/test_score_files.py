"""Files scored without a day: every row is accounted for, and each fault is one line."""

import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from batch_scoring.cli.score.score_files import LINEAGE
from batch_scoring.ingest.formats.rows import Rows
from batch_scoring.ingest.row_validator import RowValidator, ValidatedRows
from batch_scoring.ingest.schema.contract import ValidationResult
from batch_scoring.runtime import locks
from batch_scoring_tests.reliability.processes import site_of
from batch_scoring_tests.scored_files import (
    BAD,
    SCORES,
    SERVER,
    Terminal,
    put,
    read,
    score,
    score_elsewhere,
    tree,
    wait_until,
)
from batch_scoring_tests.tiny import DAY, SCHEMA, TinyProject


@pytest.mark.parametrize("form", ["csv", "csv.gz", "jsonl", "ndjson.gz", "parquet"])
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
    if form in ("parquet", "jsonl"):
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


def test_attributes_are_validated_and_not_among_the_scores(tiny: TinyProject, tmp_path: Path) -> None:
    tiny.write_code(schema=SCHEMA + "    region: str = pa.Field(isin=['north', 'south'])\n")
    tiny.spec["input"]["attributes"] = ["region"]
    tiny.write_spec()
    regions = pa.array(["west"] + ["north"] * 19)
    put(tmp_path / "a.parquet", tiny.rows(20).append_column("region", regions))
    assert score(tiny, tmp_path / "a.parquet", tmp_path / "out.parquet")[0] == 0
    scored = read(tmp_path / "out.parquet")
    assert scored.column_names == [*SCORES, "scored_at"]
    assert scored.num_rows == 19
