"""A reference, and the profile learned from it, are of the model beside them."""

import numpy as np
import pyarrow as pa
import pytest

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance.reference import check_names, check_profile, check_reference, check_texts
from batch_scoring.inference.manifest import Manifest
from batch_scoring.inference.reference_profile import ColumnProfile
from batch_scoring_tests.checked import profile
from batch_scoring_tests.text_models import letters, manifest

MANIFEST = Manifest(
    name="n",
    version="v",
    task="classification",
    arguments={},
    numeric=("x",),
    categorical={"c": ("red", "green")},
    classes=("no", "yes"),
    training={},
    metrics={},
    files={},
)
COLUMN = ColumnProfile(kind="numeric", grain="row", day=0.1, sampling=2.0, trailing=None, missing=0.0)
SCORES = {"prediction": [0, 1, 1], "prob_class_1": [0.1, 0.8, 1.0]}
ROWS = pa.table({"x": [1.0, None, 3.0], "c": ["red", "green", "red"], **SCORES})


def changed(name: str, values: list[object]) -> pa.Table:
    return ROWS.set_column(ROWS.column_names.index(name), name, pa.array(values))


def test_a_sound_reference_passes() -> None:
    check_reference(MANIFEST, ROWS)
    check_profile(
        MANIFEST, profile(columns={"x": COLUMN}, everyday={"c": {"red": 0.3}}, scores={"prob_class_1": COLUMN})
    )


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        pytest.param(ROWS.slice(0, 0), "it has no rows", id="no rows"),
        pytest.param(ROWS.drop_columns("x"), "it has no column x, which the model needs", id="no feature"),
        pytest.param(ROWS.drop_columns("prob_class_1"), "it has no column prob_class_1; expected the", id="no score"),
        pytest.param(changed("x", ["a", "b", "c"]), "column x is string; expected numbers", id="text"),
        pytest.param(changed("prob_class_1", [0.1, 1.5, np.nan]), "2 of 3 values of prob_class_1", id="no chance"),
        pytest.param(changed("prediction", [0, np.inf, 1]), "1 of 3 values of prediction are not", id="infinite"),
    ],
)
def test_what_no_day_could_be_compared_with_is_refused(rows: pa.Table, says: str) -> None:
    with pytest.raises(UnsoundError, match=says):
        check_reference(MANIFEST, rows)


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(UnsoundError, match="it has two columns x"):
        check_names(ROWS.append_column("x", ROWS["x"]))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"columns": {"c": COLUMN}}, "thresholds of c, not a numeric feature"),
        ({"everyday": {"d": {"red": 0.2}}}, "everyday values of d, not a categorical feature"),
        (
            {"scores": {"prediction": COLUMN}},
            "prediction; the model's scores are prob_class_1",
        ),
    ],
)
def test_a_profile_of_another_model_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(UnsoundError, match=says):
        check_profile(MANIFEST, profile(**changes))


def test_text_columns_are_text_and_vectors_are_lists() -> None:
    rows = pa.Table.from_batches([letters(64, seed=99)])
    check_texts(manifest(), rows)
    with pytest.raises(UnsoundError, match="it has no column body, a text that the model needs"):
        check_texts(manifest(), rows.drop_columns("body"))
    with pytest.raises(UnsoundError, match="column title is int64; expected text"):
        check_texts(manifest(), rows.set_column(1, "title", pa.array([1] * 64)))
    with pytest.raises(UnsoundError, match="it has no column e, a vector that the model needs"):
        check_texts(manifest(vectors={"e": 3}), rows)
    with pytest.raises(UnsoundError, match="column x is double; expected lists of numbers"):
        check_texts(manifest(vectors={"x": 3}), rows)
