"""Addresses of inputs and outputs: each wrong one is one line, and nothing is touched."""

import os
from pathlib import Path

from batch_scoring.config.loader import find_pipeline
from batch_scoring_tests.scored_files import put, read, score, tree
from batch_scoring_tests.tiny import DAY, TinyProject


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
        (tmp_path / "notes.txt", "o.csv", "its name ends in none of .parquet, .csv, .csv.gz, .jsonl"),
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
