"""A function that keeps values in its module is refused, as it would mix up the rows of two threads; others are not."""

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance.functions import own_encoders
from batch_scoring.inference.acceptance.functions.two_threads import interrupted
from batch_scoring.inference.inputs.own_encoder import OwnEncoder
from batch_scoring.inference.manifest import LoadedModel, Manifest
from batch_scoring_tests import pictures
from batch_scoring_tests.transformed_bundles import Net, refusal, write

Fitted = dict[str, Any]
_scratch = np.empty(1_000)
_images = np.empty((1_000, 1, pictures.SIDE, pictures.SIDE), np.float32)
_lock, _lane = threading.Lock(), threading.local()


def in_the_module(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    found = _scratch[: rows.num_rows]
    np.multiply(rows["amount"].to_numpy(), 3, out=found)
    return {"made": found.copy()}


def in_the_state(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    fitted["amount"] = rows["amount"]
    return {"made": fitted["amount"] * 3}


def under_a_lock(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    with _lock:
        return in_the_module(rows, fitted)


def in_the_thread(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    _lane.found = rows["amount"].to_numpy() * 3
    return {"made": _lane.found}


def encode(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    found = _images[: rows.num_rows]
    found[:] = pictures.encode(rows, fitted)["image"]
    return {"image": found.copy()}


@pytest.mark.parametrize("function", [in_the_module, in_the_state])
def test_a_transform_that_mixes_up_two_threads_is_refused(function: Any, tmp_path: Path) -> None:  # noqa: ANN401
    said = refusal(tmp_path, function)
    assert "while another thread calls it" in said and "Make arrays and frames anew in each call" in said


@pytest.mark.parametrize("function", [under_a_lock, in_the_thread])
def test_a_transform_that_keeps_threads_apart_is_sound(function: Any, tmp_path: Path) -> None:  # noqa: ANN401
    assert write(tmp_path, function)


def test_an_encoder_that_mixes_up_two_threads_is_refused() -> None:
    golden = pa.Table.from_batches([pictures.pictures(64)])
    manifest = Manifest(
        name="n",
        version="v1",
        task={"kind": "regression"},  # type: ignore[arg-type]
        arguments={},
        numeric=(),
        categorical={},
        training={},
        metrics={},
        files={},
    )

    def check(function: own_encoders.Function) -> None:
        encoder = OwnEncoder.learn(function, {}, pictures.pictures(64))
        own_encoders.check_two_threads(LoadedModel(manifest, "", Net(1), encode=encoder), golden)

    check(pictures.encode)
    with pytest.raises(UnsoundError, match=r"other values of image while another thread calls it"):
        check(encode)


def test_every_line_is_interrupted_once_and_tracing_ends() -> None:
    calls = []

    def function() -> int:
        total = 0
        for number in range(100):
            total += number
        return total

    before = sys.gettrace()
    assert interrupted(function, function, lambda: calls.append(threading.get_ident())) == 4950
    assert len(calls) == 4 and threading.get_ident() not in calls
    assert sys.gettrace() is before
