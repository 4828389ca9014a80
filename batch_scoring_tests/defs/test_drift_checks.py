"""Drift through the whole pipeline: an ordinary day passes, a faulty one fails by name, and no fault stops a night."""

from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batch_scoring.defs.metadata import link
from batch_scoring_tests.tiny import DAY, TinyProject, checks, ordinary, reference_rows

FEATURES, PREDICTIONS = "features_match_reference", "predictions_match_reference"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    tiny = TinyProject(tmp_path_factory.mktemp("project"))
    tiny.deliver("v1", reference=reference_rows())
    return tiny


def said(result: dg.ExecuteInProcessResult, check: str = FEATURES) -> dg.AssetCheckEvaluation:
    (found,) = [found for found in result.get_asset_check_evaluations() if found.check_name == check]
    return found


def run(tiny: TinyProject, day: str, rows: pa.Table) -> dg.AssetCheckEvaluation:
    tiny.land(day, rows)
    result = tiny.run(day)
    assert result.success
    return said(result)


def pages(tiny: TinyProject) -> list[str]:
    reports = Path(tiny.pipeline.output.uri, "reports")
    return sorted(str(file.relative_to(reports)) for file in reports.rglob("*.html"))


def added(rows: pa.Table, name: str, number: float) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), name, pc.add(rows[name], number))


def emptied(rows: pa.Table, name: str, share: float) -> pa.Table:
    lost = pa.array(np.arange(len(rows)) < share * len(rows))
    empty = pc.if_else(lost, pa.scalar(None, rows[name].type), rows[name])
    return rows.set_column(rows.column_names.index(name), name, empty)


# ordinary and faulty days


def test_an_ordinary_day_passes_and_its_figures_and_sample_are_kept(project: TinyProject) -> None:
    found = run(project, DAY, ordinary(DAY))
    assert found.passed
    assert found.description == (
        "the day: 4 columns are distributed as in the reference; "
        "the trailing 28 days: not tested, 1 of them are there, expected at least 21"
    )
    kept = project.state.drift(DAY)
    assert kept is not None and kept.model_sha256 == project.state.model().sha256
    assert {(column.column, column.horizon) for column in kept.features} == {
        *((name, what) for name in "xync" for what in ("day", "missing")),
        *((name, "repeated") for name in "xyn"),  # c has three values: one of them may have nearly all rows
    }
    assert found.metadata["observed"].value == max(column.observed / column.threshold for column in kept.features)
    sample = pq.read_table(Path(project.pipeline.output.uri, "state", f"dt={DAY}", "sample.parquet"), partitioning=None)
    assert sample.num_rows == 60 and {"x", "prob_class_1"} <= set(sample.column_names)
    assert pages(project) == [], "nobody asked for a page of a day that does not alarm"


def test_days_whose_samples_are_gone_are_not_counted_and_the_message_says_why(tiny: TinyProject) -> None:
    tiny.deliver("v1", reference=reference_rows())
    tiny.spec["retention"] = {"samples_days": 10}
    tiny.write_spec()
    assert run(tiny, "2024-04-01", ordinary("2024-04-01")).passed
    tiny.pipeline.output.remove("state/dt=2024-04-01/sample.parquet")
    found = run(tiny, "2024-04-02", ordinary("2024-04-02"))
    assert found.passed and (found.description or "").endswith(
        "the trailing 28 days: not tested, 1 of them are there, expected at least 21; samples are kept for 10 days, "
        "says retention.samples_days"
    )
    run(tiny, "2024-04-01", ordinary("2024-04-01", count=61))
    assert tiny.pipeline.output.list("state/dt=2024-04-01/sample.parquet"), "a day that is run again has one again"


def test_a_day_that_is_a_standard_deviation_off_fails_by_the_columns_name(project: TinyProject) -> None:
    day = "2024-04-03"
    found = run(project, day, added(ordinary(day), "y", 4.5))
    assert not found.passed and found.severity == dg.AssetCheckSeverity.WARN
    assert (
        found.description.startswith("the day: beyond the threshold: y (distance 1.") and "x (" not in found.description
    )
    table = found.metadata["worst_columns"]
    assert isinstance(table, dg.TableMetadataValue)
    assert (table.records[0].data["column"], table.records[0].data["drifted"]) == ("y", True)
    assert sum(bool(record.data["drifted"]) for record in table.records) == 1
    page = found.metadata["drift"]
    assert isinstance(page, dg.PathMetadataValue)
    assert Path(page.value) == Path(project.pipeline.output.uri, f"reports/dt={day}/drift.html")
    assert b'"data_drift": "Detected"' in Path(page.value).read_bytes()


def test_a_category_that_takes_over_fails_by_the_columns_name(project: TinyProject) -> None:
    day = "2024-04-04"
    rows = ordinary(day)
    red = pc.if_else(pc.equal(rows["c"], "blue"), "red", pc.if_else(pc.equal(rows["c"], "green"), "red", rows["c"]))
    found = run(project, day, rows.set_column(4, "c", red))
    assert not found.passed and "beyond the threshold: c (distance" in found.description


def test_missing_values_fail_by_the_columns_name(project: TinyProject) -> None:
    day = "2024-05-08"
    found = run(project, day, emptied(ordinary(day), "y", 0.3))
    assert not found.passed
    assert "the day: beyond the threshold: y (30.0% missing, expected below 2.0%)" in found.description


def test_a_column_that_says_one_value_of_every_row_fails_by_its_name_also_of_the_days_grain(
    tmp_path: Path,
) -> None:
    tiny = TinyProject(tmp_path)
    tiny.spec["features"]["day_grain"] = ["x", "y", "n", "c"]
    tiny.deliver("v1", reference=reference_rows())
    rows = ordinary(DAY)
    stuck = rows.set_column(1, "x", pa.array([0.0] * len(rows)))
    found = run(tiny, DAY, stuck)
    assert not found.passed
    assert "the day: beyond the threshold: x (100.0% repeated, expected below " in found.description
    assert run(tiny, "2024-03-05", ordinary("2024-03-05")).passed


def test_a_page_that_cannot_be_drawn_takes_nothing_from_the_verdict(project: TinyProject) -> None:
    day = "2024-05-10"
    project.pipeline.output.put(f"reports/dt={day}", b"a file where a folder should be")
    found = run(project, day, added(ordinary(day), "y", 4.5))
    Path(project.pipeline.output.uri, f"reports/dt={day}").unlink()
    assert not found.passed and "beyond the threshold: y (distance 1." in found.description
    assert "Error" in str(found.metadata["page_could_not_be_drawn"].value)
    kept = project.state.checks("features_drift", day)
    assert kept is not None and not kept.checks[FEATURES].passed


def test_an_empty_column_fails_and_is_named_where_it_is_not_on_the_page(project: TinyProject) -> None:
    day = "2024-05-09"
    found = run(project, day, emptied(ordinary(day), "y", 1))
    assert not found.passed and "y (100.0% missing, expected below 2.0%)" in found.description
    assert found.metadata["drift_leaves_out"].value == "y"
    assert f"dt={day}/drift.html" in pages(project)


@pytest.mark.parametrize(("day", "rows"), [("2024-06-05", 30), ("2024-06-06", 600), ("2024-06-09", 600)])
def test_few_rows_and_many_rows_are_no_drift(project: TinyProject, day: str, rows: int) -> None:
    found = run(project, day, ordinary(day, rows))
    assert found.passed and "the day: 4 columns are distributed as in the reference" in found.description
    assert found.metadata["rows_compared"].value == rows


def test_fewer_rows_than_thirty_are_not_tested(project: TinyProject) -> None:
    found = run(project, "2024-06-07", added(ordinary("2024-06-07", 29), "y", 100.0))
    assert found.passed and "the day: not enough rows, 29, expected at least 30" in found.description


def test_a_large_day_is_compared_by_its_sample(project: TinyProject) -> None:
    project.spec["drift"] = {"sample_rows": 100}
    project.write_spec()
    found = run(project, "2024-07-01", ordinary("2024-07-01", 700))
    assert (found.metadata["rows_compared"].value, found.metadata["rows"].value) == (100, 700)
    assert found.passed
    del project.spec["drift"]
    project.write_spec()


# what cannot be compared


def test_without_a_profile_it_is_said_and_nothing_fails(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    result = tiny.run()
    for check in (FEATURES, PREDICTIONS):
        assert said(result, check).passed
        assert said(result, check).description == (
            "not tested: the model's bundle has no profile; "
            f"learn one with python -m batch_scoring.monitoring.drift.distances calibrate {tiny.name}"
        )
    assert tiny.state.drift(DAY) is None
    assert Path(tiny.pipeline.output.uri, "state", f"dt={DAY}", "sample.parquet").is_file(), "for days to come"


def test_without_a_model_it_is_said(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    result = tiny.run(steps=["raw_input", "validated_features"])
    assert said(result).passed and said(result).description == "not tested: no model is in force yet"


def test_a_reference_too_short_for_the_trailing_days_is_the_reason_that_is_given(tiny: TinyProject) -> None:
    tiny.deliver("v1", reference=reference_rows(days=30))
    found = run(tiny, DAY, ordinary(DAY))
    assert found.passed
    assert found.description.endswith(
        "the trailing 28 days: not tested, the reference has 30 days, expected at least 84"
    )


def test_a_damaged_reference_is_a_failed_result_and_the_night_goes_on(tiny: TinyProject) -> None:
    tiny.run(steps=["model"])
    Path(tiny.state.models.uri, tiny.state.model().sha256, "reference.parquet").write_bytes(b"PAR1")
    tiny.land(DAY, tiny.rows(64))
    result = tiny.run(steps=["raw_input", "validated_features"])
    assert result.success
    assert not said(result).passed and said(result).severity == dg.AssetCheckSeverity.WARN
    assert said(result).description.startswith("the comparison failed: BundleError: ")
    assert "reference.parquet has sha256" in said(result).description
    assert said(result).description.endswith("; the scores stand")


def test_whatever_is_raised_fails_both_results_and_not_the_run(project: TinyProject) -> None:
    day = "2024-08-07"
    Path(project.pipeline.output.uri, f"state/dt={day}/sample.parquet").mkdir(parents=True)
    project.land(day, ordinary(day))
    result = project.run(day)
    assert result.success and project.read(day).num_rows == 60
    for check in (FEATURES, PREDICTIONS):
        assert not said(result, check).passed and said(result, check).severity == dg.AssetCheckSeverity.WARN
        assert said(result, check).description.startswith("the comparison failed: ")


def test_validated_features_alone_runs_its_own_check_only(project: TinyProject) -> None:
    day = "2024-08-05"
    project.land(day, ordinary(day))
    project.run(day, ["raw_input"])
    ran = checks(project.run(day, ["validated_features"]))
    assert ran[f"validated_features/{FEATURES}"] and f"predictions/{PREDICTIONS}" not in ran
    ran = checks(project.run(day, ["predictions"]))
    assert ran[f"predictions/{PREDICTIONS}"] and f"validated_features/{FEATURES}" not in ran
    kept = project.state.drift(day)
    assert kept is not None and len(kept.features) == 11, "what the first run has said stands"


@pytest.mark.parametrize(("outputs", "task"), [(1, "regression"), (3, "classification")])
def test_a_regression_and_a_model_of_three_classes_are_compared_too(tiny: TinyProject, outputs: int, task: str) -> None:
    tiny.deliver("v1", outputs=outputs, task=task, reference=reference_rows(days=30))
    tiny.land(DAY, ordinary(DAY))
    result = tiny.run()
    assert said(result).passed and said(result, PREDICTIONS).passed
    assert "4 columns" in str(said(result).description)


# pages


def test_pages_are_kept_of_days_that_alarm_and_of_the_newest(tiny: TinyProject) -> None:
    tiny.deliver("v1", reference=reference_rows(days=30))
    tiny.spec["drift"] = {"reports": 2}
    tiny.write_spec()
    monday, tuesday, wednesday, thursday = (f"2024-03-0{day}" for day in (4, 5, 6, 7))
    run(tiny, monday, added(ordinary(monday), "x", 10.0))
    for day in (tuesday, wednesday):
        assert run(tiny, day, ordinary(day)).passed
    assert pages(tiny) == [f"dt={day}/drift.html" for day in (monday, tuesday, wednesday)]
    run(tiny, thursday, ordinary(thursday))
    assert pages(tiny) == [f"dt={day}/drift.html" for day in (monday, wednesday, thursday)]
    before = {page: Path(tiny.pipeline.output.uri, "reports", page).read_bytes() for page in pages(tiny)}
    tiny.run(thursday, ["predictions"])
    assert before == {page: Path(tiny.pipeline.output.uri, "reports", page).read_bytes() for page in pages(tiny)}, (
        "a page of the features is not drawn without their tests"
    )
    run(tiny, monday, ordinary(monday))
    assert pages(tiny) == [f"dt={day}/drift.html" for day in (wednesday, thursday)], "a corrected day no longer alarms"


def test_a_file_of_somebody_elses_among_the_pages_stays(project: TinyProject) -> None:
    for name in ("reports/dt=notes.txt", f"reports/dt={DAY}/mine.html", f"reports/dt={DAY}/deep/drift.html"):
        project.pipeline.output.put(name, b"mine")
    assert run(project, "2024-08-06", ordinary("2024-08-06")).passed
    there = {file.path for file in project.pipeline.output.list("reports/")}
    assert {"reports/dt=notes.txt", f"reports/dt={DAY}/mine.html", f"reports/dt={DAY}/deep/drift.html"} <= there


def test_a_page_is_linked_under_the_reports_url_if_there_is_one(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = f"reports/dt={DAY}/drift.html"
    assert link(tiny.pipeline, page) == dg.MetadataValue.path(f"{tiny.data_root}/{tiny.name}/{page}")
    monkeypatch.setenv("REPORTS_URL", "http://localhost:3001/")
    assert link(tiny.pipeline, page) == dg.MetadataValue.url(f"http://localhost:3001/{tiny.name}/{page}")
    tiny.spec["output"] = "/elsewhere"
    tiny.write_spec()
    assert link(tiny.pipeline, page) == dg.MetadataValue.path(f"/elsewhere/{page}"), "the server does not show that"


def test_a_page_in_a_bucket_is_linked_to_the_console_if_that_knows_the_bucket(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.spec["output"] = "s3://bucket/scores"
    tiny.write_spec()
    url = "https://console.aws.amazon.com/s3/object/bucket?prefix=scores/reports/page.html"
    assert link(tiny.pipeline, "reports/page.html") == dg.MetadataValue.url(url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    assert link(tiny.pipeline, "reports/page.html") == dg.MetadataValue.text("s3://bucket/scores/reports/page.html")
