"""Reasons of scores, held against the network itself with the features replaced by hand."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch import nn

from batch_scoring.errors import ScoringError
from batch_scoring.inference.inputs.transform import Transform
from batch_scoring.inference.manifest import LoadedModel, Manifest
from batch_scoring.inference.occlusion import Occlusion, usual_values
from batch_scoring.inference.scorer import Scorer
from batch_scoring_tests.networks import NUMERIC, Base, loaded, made, own_outputs, table, write


def explained(folder: Path, network: nn.Module, column: str = "prob_class_1") -> Occlusion:
    write(folder, network)
    return Occlusion(Scorer(loaded(folder, network), device="cpu"), table(), column)


def score(network: nn.Module, rows: pa.Table) -> np.ndarray:
    """The probability of the second class, by torch alone."""
    return torch.from_numpy(own_outputs(network, rows)).softmax(dim=1)[:, 1].numpy().astype(np.float64)


def replaced(rows: pa.Table, name: str, value: object) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), name, pa.array([value] * len(rows)))


def test_usual_values_are_medians_and_most_frequent_values(tmp_path: Path) -> None:
    usual = explained(tmp_path, made(Base)).usual
    reference = table().to_pandas()
    for index in range(NUMERIC):
        assert usual[f"x{index}"].as_py() == pytest.approx(reference[f"x{index}"].median())
    assert usual["c"].as_py() == reference["c"].mode()[0] == "red"


def test_an_effect_is_what_the_network_itself_loses_without_the_feature(tmp_path: Path) -> None:
    network, rows = made(Base), table(50, start=500)
    occlusion = explained(tmp_path, network)
    found = occlusion.effects(rows.combine_chunks().to_batches()[0])
    assert set(found) == {"x0", "x1", "x2", "x3", "c"}
    for name, effect in found.items():
        without = score(network, replaced(rows, name, occlusion.usual[name].as_py()))
        np.testing.assert_allclose(effect, score(network, rows) - without, atol=1e-6)


def test_reasons_name_the_largest_lifts_first_with_the_value_of_the_row(tmp_path: Path) -> None:
    network, rows = made(Base), table(50, start=500)
    occlusion = explained(tmp_path, network)
    lost = {
        name: score(network, rows) - score(network, replaced(rows, name, occlusion.usual[name].as_py()))
        for name in occlusion.usual
    }
    for number, text in enumerate(occlusion.reasons(rows, 2).to_pylist()):
        expected = sorted((name for name in lost if lost[name][number] > 0.00501), key=lambda name: -lost[name][number])
        parts = [re.fullmatch(r"(\w+) (\S+) (\+\S+)", part) for part in text.split(", ")] if text else []
        assert min(2, len(expected)) <= len(parts) <= 2
        for name, part in zip(expected, parts, strict=False):
            assert part and part[1] == name
            assert float(part[3]) == pytest.approx(lost[name][number], abs=0.00501)
            value = rows[name][number].as_py()
            assert part[2] == ("missing" if value is None else value if name == "c" else f"{value:.4g}")


def test_reasons_do_not_depend_on_the_rows_beside_a_row(tmp_path: Path) -> None:
    occlusion, rows = explained(tmp_path, made(Base)), table(40, start=300)
    whole = occlusion.reasons(rows, 3).to_pylist()
    assert [occlusion.reasons(rows.slice(number, 1), 3)[0].as_py() for number in range(40)] == whole


def test_a_row_that_nothing_lifts_has_no_reason(tmp_path: Path) -> None:
    occlusion, rows = explained(tmp_path, made(Base)), table(3)
    for name, value in occlusion.usual.items():
        rows = replaced(rows, name, value.as_py())
    assert occlusion.reasons(rows, 3).to_pylist() == ["", "", ""]


def test_a_feature_without_any_value_in_the_reference_is_left_out(tmp_path: Path) -> None:
    network = made(Base)
    write(tmp_path, network)
    reference = replaced(table(), "x1", None)
    reference = reference.set_column(reference.column_names.index("x1"), "x1", pa.nulls(len(reference), pa.float64()))
    assert "x1" not in usual_values(reference, loaded(tmp_path, network).manifest)


def test_another_column_than_a_score_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ScoringError, match=r"prob_class_7 is not a score of the model; its scores are prediction_proba, "
    ):
        explained(tmp_path, made(Base), "prob_class_7")


def test_a_transform_that_raises_for_many_rows_with_a_usual_value_explains_the_others() -> None:
    def transform(rows: pa.RecordBatch, fitted: dict[str, Any]) -> dict[str, Any]:
        if pc.any(pc.less(rows["closed"], rows["opened"])).as_py():
            raise ValueError("closed before it was opened")
        return {"open_for": pc.subtract(rows["closed"], rows["opened"])}

    opened = np.arange(1_000)
    rows = pa.table({"opened": opened, "closed": opened + 10 + opened % 7})
    manifest = Manifest(
        name="n",
        version="v1",
        task={"kind": "regression"},  # type: ignore[arg-type]
        arguments={},
        numeric=("open_for",),
        categorical={},
        engineered={"open_for": "int64"},
        training={},
        metrics={},
        files={},
    )
    model = LoadedModel(manifest, "", nn.Identity(), transform=Transform.learn(transform, {}, rows))
    reasons = Occlusion(Scorer(model, device="cpu"), rows, "prediction").reasons(rows, 1).to_pylist()
    assert reasons[0] == reasons[999] == "" and reasons[495].startswith("opened 495 +")
