"""An encoder that looks at other rows, or at chance, is refused when the bundle is written."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batch_scoring.errors import BundleError
from batch_scoring.inference.bundle import load_bundle, read_bundle, write_bundle
from batch_scoring.inference.network.code import ModelCode
from batch_scoring.inference.scorer import Scorer
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.pictures import DEPENDENT, Seeing, encode, pictures


def write(folder: Path, function: Callable[..., Any] = encode, **changes: Any) -> str:  # noqa: ANN401
    rows = pa.Table.from_batches([pictures(300)])
    options: dict[str, Any] = {
        "network": Seeing(),
        "arguments": {},
        "name": "photos",
        "version": "v1",
        "task": "classification",
        "numeric": ["x"],
        "categorical": {},
        "classes": ["no", "yes"],
        "training": {},
        "metrics": {},
        "golden": pa.Table.from_batches([pictures(64, seed=9)]),
        "reference": rows.append_column("dt", pa.array([dt.date(2024, 1, 1)] * 300)),
        "code": ModelCode(Seeing, encode=function),
    }
    return write_bundle(folder, **(options | changes))


@pytest.mark.parametrize("function", DEPENDENT)
def test_an_encoder_that_looks_beside_its_row_is_refused(function: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"features\.encode gives other values of image for golden rows") as caught:
        write(tmp_path, function)
    assert len(str(caught.value).splitlines()) == 1
    assert not [*tmp_path.iterdir()]


def test_a_bundle_with_pictures_scores_each_row_alone(tmp_path: Path) -> None:
    write(tmp_path, fitted={"largest": 200})
    loaded = load_bundle(open_folder(str(tmp_path)), ModelCode(Seeing, encode=encode))
    batch = pictures(400, seed=3)
    cells = batch["photo"].to_pylist()
    cells[7] = b"?"
    batch = batch.set_column(2, "photo", pa.array(cells, pa.binary()))
    found = Scorer(loaded, device="cpu").score_batch(batch)
    assert [(row.position, row.rule) for row in found.failed] == [(7, "encode_raises")]
    for size in (1, 7, 64, 100):
        parts = [batch.slice(start, size) for start in range(0, 400, size)]
        again = [part.scores for part in Scorer(loaded, device="cpu").score(parts, helpers=1)]
        assert pa.Table.from_batches(again).combine_chunks().equals(pa.Table.from_batches([found.scores]))


def test_a_reference_holds_no_picture(tmp_path: Path) -> None:
    write(tmp_path)
    assert "photo" not in read_bundle(open_folder(str(tmp_path))).reference.column_names


def test_a_bundle_that_needs_an_encoder_is_not_loaded_without_it(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(BundleError, match="needs the inputs image, and has no function that makes them"):
        load_bundle(open_folder(str(tmp_path)), Seeing)


def test_another_decoding_than_in_training_is_found_when_it_is_loaded(tmp_path: Path) -> None:
    write(tmp_path)
    code = ModelCode(Seeing, encode=lambda rows, fitted: {"image": np.asarray(encode(rows, fitted)["image"]) * 0.9})
    with pytest.raises(BundleError, match="the golden rows differ by"):
        load_bundle(open_folder(str(tmp_path)), code)
