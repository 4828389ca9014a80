"""A manifest refuses what would mislead later, and older ones are read as they were meant."""

import json
from pathlib import Path

import pytest

from batch_scoring.inference.bundle import read_manifest
from batch_scoring.inference.heads.classification import Classification
from batch_scoring.inference.heads.task import Task
from batch_scoring.inference.manifest import Manifest
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.broken_bundles import as_format_1, change_manifest
from batch_scoring_tests.networks import NUMERIC, WORDS, Base, loaded, made, refusal, write


@pytest.mark.parametrize("tolerance", [0, -1e-5, float("nan"), float("inf")])
def test_a_tolerance_is_a_finite_number_above_0(tmp_path: Path, tolerance: float) -> None:
    assert "bundle.json would not be a manifest: golden_tolerance" in refusal(
        tmp_path, made(Base), golden_tolerance=tolerance
    )


@pytest.mark.parametrize("changes", [{"categorical": {"c": [*WORDS, "red"]}}, {"numeric": ["x0"] * NUMERIC}])
def test_no_name_stands_twice(tmp_path: Path, changes: dict[str, object]) -> None:
    assert "occurs twice; expected every name once" in refusal(tmp_path, made(Base), **changes)


def test_a_bundle_of_before_loads_as_before(tmp_path: Path) -> None:
    """A plain number is absolute, and stays what it is in the file."""
    network = made(Base)
    write(tmp_path, network)
    change_manifest(tmp_path, lambda m: {**m, "golden_tolerance": 1e-5})
    model = loaded(tmp_path, network)
    assert model.manifest.golden_tolerance == 1e-5
    assert (model.manifest.tolerance.absolute, model.manifest.tolerance.relative) == (1e-5, 0.0)
    change_manifest(tmp_path, lambda m: {name: value for name, value in m.items() if name != "golden_tolerance"})
    assert loaded(tmp_path, network).manifest.golden_tolerance == 1e-5


def test_a_task_of_before_is_the_head_of_today(tmp_path: Path) -> None:
    network = made(Base)
    write(tmp_path, network)
    today = loaded(tmp_path, network).manifest
    as_format_1(tmp_path)
    before = loaded(tmp_path, network).manifest
    assert (before.format, today.format) == (1, 2)
    assert before.task == today.task == Classification(classes=("no", "yes"))


def test_many_classes_of_before_keep_a_column_each(tmp_path: Path) -> None:
    network = made(type("Many", (Base,), {"outputs": 51}))
    write(tmp_path, network, classes=list(map(str, range(51))))
    assert len(loaded(tmp_path, network).manifest.task.columns) == 4
    as_format_1(tmp_path)
    manifest = read_manifest(open_folder(str(tmp_path)))[1]
    assert len(manifest.task.columns) == 53
    again = Manifest.model_validate_json(manifest.model_copy(update={"format": 2}).model_dump_json())
    assert again.task == manifest.task


def test_a_head_is_written_without_what_is_usual(tmp_path: Path) -> None:
    write(tmp_path, made(Base))
    head = json.loads((tmp_path / "bundle.json").read_text())["task"]
    assert head == {"kind": "classification", "classes": ["no", "yes"]}


@pytest.mark.parametrize(
    ("task", "classes", "outputs", "scores", "predictions", "watched"),
    [
        ("regression", (), 1, ("prediction",), ("prediction",), "prediction"),
        (
            "classification",
            ("no", "yes"),
            2,
            ("prob_class_1",),
            ("prediction", "prediction_proba", "prob_class_0", "prob_class_1"),
            "prediction_proba",
        ),
        (
            "classification",
            ("a", "b", "c"),
            3,
            ("prob_class_0", "prob_class_1", "prob_class_2"),
            ("prediction", "prediction_proba", "prob_class_0", "prob_class_1", "prob_class_2"),
            "prediction_proba",
        ),
    ],
)
def test_the_task_and_the_classes_say_which_columns_there_are(
    task: Task,
    classes: tuple[str, ...],
    outputs: int,
    scores: tuple[str, ...],
    predictions: tuple[str, ...],
    watched: str,
) -> None:
    manifest = Manifest(
        name="n",
        version="v",
        task=task,
        arguments={},
        numeric=("x",),
        categorical={"c": ("red",)},
        classes=classes,
        training={},
        metrics={},
        files={},
    )
    assert (manifest.outputs, manifest.task.score_columns) == (outputs, scores)
    assert (manifest.task.columns, manifest.task.confidence_column) == (predictions, watched)
    assert manifest.features == ("x", "c") and len(manifest.output_columns) == outputs


def test_what_a_model_does_not_have_is_not_in_its_manifest(tmp_path: Path) -> None:
    write(tmp_path, made(Base))
    assert {"engineered", "text"}.isdisjoint(json.loads((tmp_path / "bundle.json").read_text()))
