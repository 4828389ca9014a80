"""Specs, landing files and bundles that are broken: for each the right finding, and nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from batch_scoring.config.loader import PROJECT
from batch_scoring_tests.broken_bundles import seal
from batch_scoring_tests.broken_sites import Clinic, findings, told
from batch_scoring_tests.tiny import DAY, NETWORK, NEXT_DAY, SCHEMA


def test_a_wrong_field_and_an_unknown_time_zone_are_both_said(clinic: Clinic) -> None:
    clinic.tiny.spec["scoring"]["rows_per_shart"] = 5
    clinic.tiny.spec["partitions"]["timezone"] = "Mars/Olympus"
    clinic.tiny.write_spec()
    report = clinic.look()
    assert findings(report) == [("error", "specs")] * 2
    assert "unknown field; did you mean rows_per_shard?" in report.text() and "Mars/Olympus" in report.text()
    assert "until then the deployment leaves the pipeline out" in report.text()
    assert all("pipeline.yaml" in finding.where for finding, _ in report.findings() if finding.severity == "error")


def test_a_landing_folder_that_is_not_there(clinic: Clinic) -> None:
    shutil.rmtree(clinic.tiny.pipeline.landing.uri)
    report = clinic.look()
    told(report, "error", "landing folder", clinic.tiny.pipeline.landing.uri, "mkdir -p")
    skipped = {outcome.probe.name for outcome in report.outcomes if outcome.skipped}
    assert skipped == {"newest landing file", "landing names"}, "one fault, one finding"


def test_no_landing_file_at_all(clinic: Clinic) -> None:
    shutil.rmtree(Path(clinic.tiny.pipeline.landing.uri, f"dt={DAY}"))
    told(
        clinic.look(), "warning", "newest landing file", "no data file", ".parquet", "set input.landing in the spec if"
    )


def test_of_the_newest_file_a_missing_column(clinic: Clinic) -> None:
    clinic.tiny.land(NEXT_DAY, clinic.tiny.rows(10).drop_columns(["y"]))
    told(clinic.look(), "error", "newest landing file", f"dt={NEXT_DAY}/a.parquet", "has no column y", "schema.py")


def test_of_the_newest_file_a_retyped_column(clinic: Clinic) -> None:
    rows = clinic.tiny.rows(10)
    rows = rows.set_column(rows.column_names.index("n"), "n", rows["n"].cast(pa.string()))
    clinic.tiny.land(NEXT_DAY, rows)
    told(clinic.look(), "error", "newest landing file", "column n is string", "expects int64")


def test_of_a_csv_file_cells_of_another_kind(clinic: Clinic) -> None:
    lines = [f"k{number},0.5,0.5,{number}.25,red" for number in range(20)]
    clinic.tiny.land(NEXT_DAY, "\n".join(["id,x,y,n,c", *lines, ""]).encode(), "a.csv")
    told(clinic.look(), "error", "newest landing file", "20 of its first 20 rows are rejected", "n is_int64")


def test_of_json_lines_values_of_another_kind(clinic: Clinic) -> None:
    lines = [f'{{"id": {number}, "x": 0.5, "y": 0.5, "n": 1, "c": "red", "new": 1}}\n' for number in range(20)]
    clinic.tiny.land(NEXT_DAY, "".join(lines).encode(), "a.jsonl")
    told(
        clinic.look(),
        "error",
        "newest landing file",
        "20 of its first 20 rows are rejected: rows that cannot be parsed: 20 ('line 1: id is the number 0; expected",
        "Field(coerce=True) in the schema accepts it",
    )


def test_of_a_csv_file_whole_floats_for_an_integer(clinic: Clinic) -> None:
    lines = [f"k{number},0.5,0.5,{number}.0,red" for number in range(20)]
    clinic.tiny.land(NEXT_DAY, "\n".join(["id,x,y,n,c", *lines, ""]).encode(), "a.csv")
    told(
        clinic.look(),
        "error",
        "newest landing file",
        "n is_int64",
        "n: a missing value turns integers into floats",
        "coerce=True",
    )


def test_of_a_csv_file_decimal_commas(clinic: Clinic) -> None:
    lines = [f'k{number},"0,5",0.5,1,red' for number in range(20)]
    clinic.tiny.land(NEXT_DAY, "\n".join(["id,x,y,n,c", *lines, ""]).encode(), "a.csv")
    told(clinic.look(), "error", "newest landing file", "('0,5')", "x: a decimal comma: write 0.5, not 0,5")


def test_features_in_another_order_than_the_bundles_are_worth_a_word(clinic: Clinic) -> None:
    clinic.tiny.spec["features"]["numeric"].reverse()
    clinic.tiny.write_spec()
    report = clinic.look()
    assert findings(report) == []
    order = ", ".join(reversed(clinic.tiny.spec["features"]["numeric"]))
    assert f"its order differs from the bundle's: {order}; the network gets the bundle's order" in report.text()
    assert report.text().count("order differs") == 1, "the categorical ones have theirs"


def test_an_unexpected_column_is_worth_a_word_and_no_more(clinic: Clinic) -> None:
    clinic.tiny.land(NEXT_DAY, clinic.tiny.rows(10).append_column("colour_2", pa.array(["red"] * 10)))
    report = clinic.look()
    assert findings(report) == [] and "the schema does not know: colour_2" in report.text()


def test_a_newest_file_that_was_cut_short(clinic: Clinic) -> None:
    file = Path(clinic.tiny.pipeline.landing.uri, f"dt={DAY}", "a.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    told(clinic.look(), "error", "newest landing file", "not a complete Parquet file", "upload it again")


def test_a_name_in_the_landing_folder_that_is_no_day(clinic: Clinic) -> None:
    Path(clinic.tiny.pipeline.landing.uri, "dt=20240306").mkdir()
    told(clinic.look(), "warning", "landing names", "dt=20240306", "rename it to dt=2024-03-06/")
    Path(clinic.tiny.pipeline.landing.uri, "dt=20240306").rename(Path(clinic.tiny.pipeline.landing.uri, "archive"))
    told(clinic.look(), "warning", "landing names", "archive", "dt=YYYY-MM-DD", "move it to its day")


def test_a_day_before_the_first_one_takes_another_start(clinic: Clinic) -> None:
    Path(clinic.tiny.pipeline.landing.uri, "dt=2024-01-01").mkdir()
    told(
        clinic.look(),
        "warning",
        "landing names",
        "before the pipeline's first day, 2024-03-01",
        "a day from 2024-03-01 on",
        "set partitions.start to 2024-01-01 or earlier",
    )


def test_a_day_to_come_waits(clinic: Clinic) -> None:
    Path(clinic.tiny.pipeline.landing.uri, "dt=2999-01-01").mkdir()
    report = clinic.look()
    assert findings(report) == [] and "it is scored when its day has come" in report.text()


def test_an_entry_of_a_newest_day_that_is_no_file(clinic: Clinic) -> None:
    Path(clinic.tiny.pipeline.landing.uri, f"dt={DAY}", "b.csv").symlink_to("/etc/passwd")
    report = clinic.look()
    told(report, "error", "landing names", "b.csv", "a link to '/etc/passwd', which leads out of", "replace it with")
    assert "root:" not in report.text()


def test_a_schema_that_does_not_import(clinic: Clinic) -> None:
    clinic.tiny.write_code(schema="from math import no_such_name\n" + SCHEMA)
    told(clinic.look(), "error", "newest landing file", "schema:Rows", "no_such_name", "schema.py line 1")


def test_a_library_that_is_not_installed(clinic: Clinic) -> None:
    clinic.tiny.write_code(schema="import no_such_library\n" + SCHEMA)
    told(
        clinic.look(), "error", "specs", "features.schema", "schema.py line 1", "no_such_library", "pipeline.yaml line"
    )


def test_a_damaged_bundle(clinic: Clinic) -> None:
    file = Path(clinic.tiny.pipeline.bundle.uri, "model.safetensors")
    file.write_bytes(file.read_bytes()[:-4])
    told(clinic.look(), "error", "model bundle", "bundle_is_intact", "model.safetensors", "deliver the bundle again")


def test_golden_rows_that_do_not_agree(clinic: Clinic) -> None:
    import safetensors.torch

    folder = Path(clinic.tiny.pipeline.bundle.uri)
    weights = safetensors.torch.load((folder / "model.safetensors").read_bytes())
    weights = {name: tensor + 0.5 for name, tensor in weights.items()}
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(weights))
    seal(folder)
    told(
        clinic.look(),
        "error",
        "model bundle",
        "golden_rows_agree",
        "the golden rows differ by",
        "the network's code has changed since the bundle was written (undo the change, or write a new bundle)",
    )


def test_a_buffer_that_the_network_no_longer_has(clinic: Clinic) -> None:
    clinic.tiny.write_code(network=NETWORK.replace("torch.nn.Linear(16, outputs)", "torch.nn.Identity()"))
    told(clinic.look(), "error", "model bundle", "does not have", "Net has changed since the bundle was written: undo")


def test_a_metric_below_its_threshold(clinic: Clinic) -> None:
    clinic.tiny.spec["checks"]["metrics_meet_threshold"] = {"least": {"auc": 0.9}}
    clinic.tiny.write_spec()
    told(clinic.look(), "warning", "model bundle", "auc is not recorded, expected at least 0.9")


def test_libraries_that_do_not_import_are_found_by_the_probes_that_need_them(tmp_path: Path) -> None:
    for part in ("landing", "models"):
        shutil.copytree(PROJECT / "data/customer_churn" / part, tmp_path / "customer_churn" / part)
    hidden = "import sys; sys.modules.update({'pandera.pandas': None, 'safetensors.torch': None})\n"
    command = "from batch_scoring.cli.main import main; sys.exit(main(['doctor', 'customer_churn', '--json']))"
    environment = os.environ | {"BATCH_SCORING_DATA": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", hidden + command], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    found = {finding["probe"]: finding["found"] for finding in json.loads(done.stdout)["findings"]}
    assert "pandera.pandas" in found["newest landing file"] and "safetensors.torch" in found["model bundle"]
