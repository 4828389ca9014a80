"""Days of a pipeline whose model makes features from columns, in Arrow and in pandas, from files to tables."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from batch_scoring.cli.score import score_files
from batch_scoring.cli.score.score_files import ScoreRequest
from batch_scoring.daily.model_code import model_code
from batch_scoring.errors import BundleError
from batch_scoring.inference.bundle import load_bundle
from batch_scoring.inference.scorer import Scorer
from batch_scoring.monitoring.checks.model_checks import examine
from batch_scoring.monitoring.drift import samples
from batch_scoring.monitoring.drift.comparison import compare
from batch_scoring_tests.engineered import FEATURES, RULES, deliver, engineer, write_features
from batch_scoring_tests.specs import put
from batch_scoring_tests.tiny import (
    DAY,
    NEXT_DAY,
    SCHEMA,
    TinyProject,
    checks,
    error_of,
    ordinary,
    reference_rows,
)


def poisoned(tiny: TinyProject, rows: int = 300) -> pa.Table:
    """Rows with two for which the transform raises, one whose ratio breaks a rule, two that the network refuses."""
    table = tiny.rows(rows)
    x, y = table["x"].to_pylist(), table["y"].to_pylist()
    x[10] = x[200] = 777.0
    x[20], y[20] = 900.0, 0.0
    x[30], x[31], y[30], y[31] = 666.0, 555.0, 9.0, 9.0
    return table.set_column(1, "x", pa.array(x)).set_column(2, "y", pa.array(y))


@pytest.mark.parametrize("form", ["arrow", "pandas"])
def test_rows_without_engineered_features_are_quarantined_and_the_others_scored(tiny: TinyProject, form: str) -> None:
    engineer(tiny, form)
    deliver(tiny)
    tiny.land(DAY, poisoned(tiny))
    found = checks(tiny.run())
    assert {name for name, ok in found.items() if not ok} <= {"predictions/classes_are_balanced"}
    assert tiny.quarantined() == {
        ("k0000010", "score", "transform_raises", ""),
        ("k0000200", "score", "transform_raises", ""),
        ("k0000020", "score", "less_than_or_equal_to(500)", "ratio"),
        ("k0000030", "score", "network_raises", ""),
        ("k0000031", "score", "output_is_finite", ""),
    }
    values = {row["id"]: row["value"] for row in tiny.read(table="quarantine").to_pylist()}
    assert values["k0000010"] == "ValueError: x is 777"
    assert values["k0000020"] == "ratio is 900.0"
    assert tiny.read().num_rows == 295
    columns = tiny.read(table="validated_features").column_names
    assert columns == ["id", "x", "y", "n", "c", "source_file", "row_number", "dt"]


@pytest.mark.parametrize("form", ["arrow", "pandas"])
def test_scores_have_the_same_bits_however_rows_are_batched(tiny: TinyProject, form: str) -> None:
    engineer(tiny, form)
    deliver(tiny)
    tiny.land(DAY, tiny.rows(2000))
    assert tiny.run().success
    published = tiny.read()
    model = load_bundle(tiny.pipeline.bundle, model_code(tiny.pipeline))
    rows = tiny.read(table="validated_features").drop_columns("dt").combine_chunks()
    for size in (7, 64, 1_000, 65_536):
        scorer = Scorer(model, device="cpu", batch_rows=64)
        parts = [part.scores for part in scorer.score(rows.to_batches(max_chunksize=size), helpers=1)]
        assert pa.Table.from_batches(parts).equals(published.select(parts[0].schema.names).combine_chunks()), size
    scorer = Scorer(model, device="cpu")
    alone = [part.scores for part in scorer.score(rows.slice(0, 200).to_batches(max_chunksize=1))]
    assert pa.Table.from_batches(alone).equals(published.select(alone[0].schema.names).slice(0, 200).combine_chunks())


def test_arrow_and_pandas_give_the_same_bits(tmp_path: Path) -> None:
    found = []
    for form in ("arrow", "pandas"):
        project = TinyProject(tmp_path / form)
        engineer(project, form)
        deliver(project)
        project.land(DAY, poisoned(project))
        assert project.run().success
        columns = ["id", "prediction", "prediction_proba", "prob_class_0", "prob_class_1"]
        found.append(project.read().select(columns).combine_chunks())
    assert found[0].equals(found[1])


def test_scores_are_those_of_features_that_were_made_by_hand(tiny: TinyProject) -> None:
    engineer(tiny)
    deliver(tiny, fitted={"y": 3.5, "warm": pa.table({"word": ["blue"]})})
    tiny.land(DAY, tiny.rows(100))
    assert tiny.run().success
    raw = tiny.rows(100).to_pylist()
    numbers = [
        [
            row["x"],
            np.nan if row["y"] is None else row["y"],
            row["n"],
            row["x"] / ((3.5 if row["y"] is None else row["y"]) + 1),
            (row["n"] + 1) * 2,
        ]
        for row in raw
    ]
    shades = [[1 if row["c"] == "blue" else 2] for row in raw]
    network = load_bundle(tiny.pipeline.bundle, model_code(tiny.pipeline)).network
    with torch.inference_mode():
        logits = network(torch.tensor(numbers, dtype=torch.float32), torch.tensor(shades))
    expected = logits.softmax(dim=1)[:, 1].numpy()
    np.testing.assert_allclose(tiny.read()["prob_class_1"].to_numpy(), expected, atol=1e-6)


def scored(tiny: TinyProject) -> tuple[bool, bool]:
    """Run the day, and return whether its features and its scores were computed anew."""
    before = [tiny.published_day(step).run_id for step in ("validated_features", "predictions")]
    assert tiny.run().success
    after = [tiny.published_day(step).run_id for step in ("validated_features", "predictions")]
    return before[0] != after[0], before[1] != after[1]


def test_another_state_or_function_scores_again_and_validates_nothing_again(tiny: TinyProject) -> None:
    engineer(tiny)
    deliver(tiny)
    tiny.land(DAY, tiny.rows(100))
    assert tiny.run().success
    first = tiny.read()
    assert scored(tiny) == (False, False)
    (tiny.folder / "train.py").write_text("# a comment\n")
    assert scored(tiny) == (False, False)
    deliver(tiny, "v2", fitted={"y": 40.0, "warm": pa.table({"word": ["red"]})})
    assert scored(tiny) == (False, True)
    second = tiny.read()
    assert not second["prob_class_1"].equals(first["prob_class_1"])
    write_features(tiny, (tiny.folder / "features.py").read_text() + "\n# a comment in the transform's module\n")
    assert scored(tiny) == (False, True)
    assert tiny.read()["prob_class_1"].equals(second["prob_class_1"])


def test_a_model_without_a_transform_stays_usable_beside_one(tiny: TinyProject) -> None:
    """As after a rollback: features of the day are the same, whatever the model makes of them."""
    tiny.deliver("v0")
    plain = tiny.spec["model"]["bundle"]
    engineer(tiny)
    tiny.spec["features"]["categorical"] = ["shade", "c"]
    deliver(tiny)
    tiny.land(DAY, tiny.rows(100))
    assert tiny.run().success
    tiny.spec["model"]["bundle"] = plain
    tiny.write_spec()
    assert scored(tiny) == (False, True)
    assert tiny.read()["model_version"].to_pylist() == ["v0"] * 100


def test_a_changed_function_that_gives_other_values_stops_the_model(tiny: TinyProject) -> None:
    engineer(tiny)
    deliver(tiny)
    write_features(tiny, FEATURES["arrow"].replace("1.0)", "1.5)"))
    tiny.land(DAY, tiny.rows(100))
    result = tiny.run(raise_on_error=False)
    assert not result.success
    assert not checks(result)["model/golden_rows_agree"]


def test_a_bundle_that_was_written_without_its_transform_is_refused(tiny: TinyProject) -> None:
    engineer(tiny)
    put("features", "transform", value=None)(tiny.spec)
    put("features", "engineered", value=None)(tiny.spec)
    put("features", "numeric", value=["x", "y", "n", "ratio"])(tiny.spec)
    put("features", "categorical", value=["c"])(tiny.spec)
    tiny.write_code(schema=SCHEMA + "    ratio: float\n")
    tiny.deliver("v1")
    tiny.write_code(schema=SCHEMA)
    put("features", "transform", value="features:transform")(tiny.spec)
    tiny.write_spec()
    finding = next(one for one in examine(tiny.pipeline).findings if not one.passed)
    assert "needs ratio, no column of schema:Rows, and was written without the transform" in finding.message


def test_a_pipeline_that_no_longer_names_the_transform_refuses_its_model(tiny: TinyProject) -> None:
    engineer(tiny)
    deliver(tiny)
    put("features", "transform", value=None)(tiny.spec)
    put("features", "engineered", value=None)(tiny.spec)
    tiny.write_code(schema=SCHEMA + "    ratio: float\n    level: int\n    shade: str\n")
    tiny.write_spec()
    finding = next(one for one in examine(tiny.pipeline).findings if not one.passed)
    assert (
        "needs the engineered features ratio, level, shade; features.transform of the spec names no" in finding.message
    )


def test_files_are_scored_as_days_are(tiny: TinyProject, tmp_path: Path) -> None:
    engineer(tiny)
    deliver(tiny)
    tiny.land(DAY, poisoned(tiny))
    assert tiny.run().success
    pq.write_table(poisoned(tiny), tmp_path / "in.parquet")
    request = ScoreRequest(str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"), as_json=True)
    out, err = io.StringIO(), io.StringIO()
    assert score_files.run(tiny.pipeline, request, out, err) == 0, err.getvalue()
    columns = ["id", "prediction", "prob_class_1"]
    written = pq.read_table(tmp_path / "out.parquet").select(columns).sort_by("id")
    assert written.to_pylist() == tiny.read().select(columns).to_pylist()
    lost = {entry["reason"]: entry["rows"] for entry in json.loads(out.getvalue())["quarantined"]}
    assert lost["transform_raises"] == 2


def test_drift_of_engineered_features_is_found(tiny: TinyProject) -> None:
    engineer(tiny)
    deliver(tiny, reference=reference_rows())
    tiny.land(DAY, ordinary(DAY, 200))
    found = checks(tiny.run())
    assert found["validated_features/features_match_reference"]
    assert found["validated_features/categories_are_present"], "no table has shades, so none is absent"
    sample = samples.get(tiny.pipeline.output, DAY)
    assert sample is not None
    assert set(sample.rows.column_names) >= {"id", "x", "y", "n", "ratio", "level", "shade", "prob_class_1"}
    assert "c" not in sample.rows.column_names, "what the transform reads is not stored, but what it makes"
    rows = ordinary(NEXT_DAY, 200)
    tiny.land(NEXT_DAY, rows.set_column(4, "c", pa.array(["red"] * 200)))
    assert not checks(tiny.run(NEXT_DAY))["validated_features/features_match_reference"]
    drifted = {column.column for column in tiny.state.drift(NEXT_DAY).features if column.drifted}
    assert drifted == {"shade"}


def test_the_sample_of_a_day_has_rows_for_which_the_transform_raises_without_features(tiny: TinyProject) -> None:
    engineer(tiny)
    deliver(tiny, reference=reference_rows())
    tiny.land(DAY, poisoned(tiny))
    tiny.run()
    sample = samples.get(tiny.pipeline.output, DAY)
    assert sample is not None and sample.engineered_by == tiny.state.model().sha256
    by_key = {row["id"]: row for row in sample.rows.to_pylist()}
    assert len(by_key) == 300
    assert [by_key[key]["ratio"] for key in ("k0000010", "k0000200")] == [None, None]
    assert by_key["k0000001"]["level"] == 4


def test_reasons_name_the_columns_that_features_are_made_of(tiny: TinyProject) -> None:
    engineer(tiny)
    tiny.spec["decisions"] = {"actions": {"call": {"most": 40}}, "explain": 3}
    deliver(tiny)
    tiny.land(DAY, tiny.rows(100))
    assert tiny.run().success
    named = {
        part.split(" ")[0]
        for why in tiny.read(DAY, "decisions")["why"].to_pylist()
        for part in (why or "").split(", ")
        if part
    }
    assert named and named <= {"x", "y", "n", "c"}
    assert "c" in named, "the model sees its shade alone"


def test_trailing_days_are_those_whose_features_the_same_model_has_made(tiny: TinyProject) -> None:
    engineer(tiny)
    deliver(tiny, reference=reference_rows())
    for day in (DAY, NEXT_DAY):
        tiny.land(day, ordinary(day))
        tiny.run(day)
    assert compare(tiny.pipeline, NEXT_DAY, ["features"], "run").days["features"] == 2
    deliver(tiny, "v2", reference=reference_rows(), fitted={"y": 40.0, "warm": pa.table({"word": ["red"]})})
    tiny.run(NEXT_DAY)
    assert compare(tiny.pipeline, NEXT_DAY, ["features"], "run").days["features"] == 1


def test_missing_engineered_values_are_counted_in_the_sample(tiny: TinyProject) -> None:
    engineer(tiny)
    write_features(tiny, FEATURES["arrow"].replace('pc.fill_null(rows["y"], fitted["y"])', 'rows["y"]'))
    put("features", "engineered", value=None)(tiny.spec)
    tiny.write_spec()
    deliver(tiny, reference=reference_rows())
    rows = ordinary(DAY, 200)
    tiny.land(DAY, rows.set_column(2, "y", pa.array([None] * 100 + rows["y"].to_pylist()[100:], pa.float64())))
    assert not checks(tiny.run())["validated_features/features_match_reference"]
    missing = {one.column: one.observed for one in tiny.state.drift(DAY).features if one.horizon == "missing"}
    assert missing == {"x": 0, "y": 0.5, "n": 0, "ratio": 0.5, "level": 0, "shade": 0}


def test_a_column_that_only_the_transform_gets_must_be_in_the_schema(tiny: TinyProject) -> None:
    engineer(tiny)
    deliver(tiny)
    tiny.write_code(schema=(SCHEMA + RULES).replace("    c: str", "    colour: str"))
    finding = next(one for one in examine(tiny.pipeline).findings if not one.passed)
    assert "its transform gets c, no column of schema:Rows" in finding.message


def test_a_transform_that_raises_for_many_rows_of_a_shard_stops_the_day(tiny: TinyProject) -> None:
    engineer(tiny)
    deliver(tiny)
    rows = tiny.rows(500)
    broken = [777.0 if number < 101 else x for number, x in enumerate(rows["x"].to_pylist())]
    tiny.land(DAY, rows.set_column(1, "x", pa.array(broken)))
    result = tiny.run(raise_on_error=False)
    assert "features.transform raises for more than 100 rows" in error_of(result)
    tiny.land(DAY, rows.set_column(1, "x", pa.array([*broken[1:], 0.0])))
    assert tiny.run().success
    assert tiny.read().num_rows == 400


def test_rules_about_other_columns_than_the_transform_makes_stop_the_model(tiny: TinyProject) -> None:
    engineer(tiny)
    deliver(tiny)
    tiny.write_code(schema=SCHEMA + RULES + "    more: float\n")
    finding = next(one for one in examine(tiny.pipeline).findings if not one.passed)
    assert finding.check == "golden_rows_agree"
    assert "features.transform returned no column more, which schema:Engineered of" in finding.message
    with pytest.raises(BundleError, match=r"golden: features\.transform returned no column more"):
        deliver(tiny, "v2")


def test_the_table_of_features_is_described_with_the_columns_that_only_the_transform_gets(tiny: TinyProject) -> None:
    engineer(tiny)
    asset = next(
        node
        for node in tiny.definitions.resolve_asset_graph().asset_nodes
        if node.key.path == [tiny.name, "validated_features"]
    )
    columns = {column.name: column.type for column in asset.metadata["dagster/column_schema"].columns}
    assert columns == {
        "id": "key",
        "x": "numeric",
        "y": "numeric",
        "n": "numeric",
        "c": "column",
        "source_file": "string",
        "row_number": "int64",
        "dt": "date",
    }


def test_a_pipeline_s_own_function_is_tried_in_another_process(tiny: TinyProject) -> None:
    """With the modules beside it, wherever the pipelines are."""
    engineer(tiny)
    (tiny.folder / "helper.py").write_text("import datetime\n\ndef year():\n    return datetime.date.today().year\n")
    text = FEATURES["arrow"].replace('pc.add(rows["n"], 1)', 'pc.add(rows["n"], year())')
    write_features(tiny, f"from batch_scoring.pipelines.{tiny.name}.helper import year\n{text}")
    with pytest.raises(
        BundleError, match=r"with the clock 400 days ahead: level is 40\d\d in golden row 0, .* the clock"
    ):
        deliver(tiny)
