"""Scored rows as they are written, and rows without a score on their way into the quarantine."""

import json
from datetime import UTC, datetime

import pyarrow as pa

from batch_scoring.daily import scored_rows
from batch_scoring.daily.scored_rows import Unscored
from batch_scoring.inference.inputs.encoded import FailedRow
from batch_scoring.inference.manifest import Manifest
from batch_scoring.inference.scorer import ScoredBatch

KEY = pa.field("id", pa.string())


def manifest(task: str = "classification", outputs: int = 2) -> Manifest:
    return Manifest(
        name="m",
        version="v7",
        task=task,  # type: ignore[arg-type]
        arguments={},
        numeric=("x",),
        categorical={},
        classes=tuple(map(str, range(outputs))) if task == "classification" else (),
        training={},
        metrics={},
        files={},
    )


def batch(*failed: int) -> ScoredBatch:
    """Four rows of two files; some of them have no score."""
    source = pa.record_batch(
        {
            "id": ["a", "b", "c", "d"],
            "x": [1.0, 2.0, 3.0, 4.0],
            "source_file": pa.array(["f", "f", "g", "g"]).dictionary_encode(),
            "row_number": [7, 8, 1, 2],
        }
    )
    count = 4 - len(failed)
    proba = pa.array([0.5] * count, pa.float32())
    scores = {"prediction": pa.array([0] * count), "prediction_proba": proba}
    scores |= {"prob_class_0": proba, "prob_class_1": proba}
    rows = tuple(FailedRow(row, "network_raises", f"row {row}") for row in failed)
    return ScoredBatch(source, pa.RecordBatch.from_pydict(scores), rows)


def test_the_columns_are_those_of_the_task_and_hold_no_nulls() -> None:
    end = ["model_version", "scored_at"]
    classes = scored_rows.schema(KEY, manifest(outputs=3))
    assert classes.names == [
        *("id", "prediction", "prediction_proba", "prob_class_0", "prob_class_1", "prob_class_2"),
        *end,
    ]
    value = scored_rows.schema(KEY, manifest("regression", 1))
    assert value.names == ["id", "prediction", *end] and value.field("prediction").type == pa.float64()
    assert not any(field.nullable for field in [*classes, *value])


def test_rows_with_a_score_keep_their_order_and_say_which_model_and_when() -> None:
    at = pa.scalar(datetime(2024, 3, 4, tzinfo=UTC), pa.timestamp("us", "UTC"))
    rows = scored_rows.rows(batch(1), "v7", at, scored_rows.schema(KEY, manifest()))
    assert rows["id"].to_pylist() == ["a", "c", "d"]
    assert set(rows["model_version"].to_pylist()) == {"v7"} and set(rows["scored_at"].to_pylist()) == {at.as_py()}


def test_rows_without_a_score_are_rejected_with_their_reason_their_place_and_their_cells() -> None:
    unscored = Unscored(batch(1, 2), "id")
    assert unscored.keys.to_pylist() == ["b", "c"]
    rows = list(unscored.rejected())
    assert [(row.key, row.source_file, row.row_number) for row in rows] == [("b", "f", 8), ("c", "g", 1)]
    assert {(row.reason.stage, row.reason.rule, row.reason.column) for row in rows} == {("score", "network_raises", "")}
    assert [row.reason.value for row in rows] == ["row 1", "row 2"]
    assert [json.loads(row.raw) for row in rows] == [{"id": "b", "x": 2.0}, {"id": "c", "x": 3.0}]
    blocks, others = unscored.quarantine()
    assert blocks == [] and list(others) == rows


def test_a_batch_whose_rows_all_have_a_score_rejects_none() -> None:
    unscored = Unscored(batch(), "id")
    assert list(unscored.rejected()) == [] and len(unscored.keys) == 0
