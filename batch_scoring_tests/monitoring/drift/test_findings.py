"""An ordinary day passes the drift checks, a faulty one fails by its columns."""

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batch_scoring_tests.drift_days import FEATURES, PREDICTIONS, added, calibrated, emptied, kept_pages, run, said
from batch_scoring_tests.tiny import DAY, TinyProject, ordinary, reference_rows


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    return calibrated(tmp_path_factory.mktemp("project"))


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
    assert kept_pages(project) == [], "nobody asked for a page of a day that does not alarm"


def test_days_whose_samples_are_gone_are_not_counted_and_the_message_says_why(tiny: TinyProject) -> None:
    tiny.deliver("v1", reference=reference_rows())
    tiny.spec["retention"] = {"samples_days": 10}
    tiny.write_spec()
    assert run(tiny, "2024-04-01", ordinary("2024-04-01")).passed
    tiny.pipeline.output.remove("state/dt=2024-04-01/sample.parquet")
    found = run(tiny, "2024-04-02", ordinary("2024-04-02"))
    assert found.passed and (found.description or "").endswith(
        "the trailing 28 days: not tested, 1 of them are there, expected at least 21; samples are kept for 10 days "
        "(retention.samples_days)"
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
    assert f"dt={day}/drift.html" in kept_pages(project)


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


def test_without_a_profile_it_is_said_and_nothing_fails(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    result = tiny.run()
    for check in (FEATURES, PREDICTIONS):
        assert said(result, check).passed
        assert said(result, check).description == (
            "not tested: the model's bundle has no reference profile; "
            f"learn one with batch-scoring calibrate {tiny.name}"
        )
    assert tiny.state.drift(DAY) is None
    assert Path(tiny.pipeline.output.uri, "state", f"dt={DAY}", "sample.parquet").is_file(), "for days to come"


def test_without_a_model_it_is_said(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    result = tiny.run(steps=["raw_input", "validated_features"])
    assert said(result).passed and said(result).description == "not tested: no model is active yet"


def test_a_reference_too_short_for_the_trailing_days_is_the_reason_that_is_given(tiny: TinyProject) -> None:
    tiny.deliver("v1", reference=reference_rows(days=30))
    found = run(tiny, DAY, ordinary(DAY))
    assert found.passed
    assert found.description.endswith(
        "the trailing 28 days: not tested, the reference has 30 days, expected at least 84"
    )


@pytest.mark.parametrize(("outputs", "task"), [(1, "regression"), (3, "classification")])
def test_a_regression_and_a_model_of_three_classes_are_compared_too(tiny: TinyProject, outputs: int, task: str) -> None:
    tiny.deliver("v1", outputs=outputs, task=task, reference=reference_rows(days=30))
    tiny.land(DAY, ordinary(DAY))
    result = tiny.run()
    assert said(result).passed and said(result, PREDICTIONS).passed
    assert "4 columns" in str(said(result).description)
