"""Training scripts get what scoring gets, learn from training rows alone, and cannot write what scores differently."""

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from batch_scoring.config.loader import declared_pipeline
from batch_scoring.errors import BundleError, UnsoundError
from batch_scoring.inference.bundle import read_bundle
from batch_scoring.inference.heads.quantiles import Quantiles
from batch_scoring.learning.splits import spread
from batch_scoring.pipelines.customer_churn.data import customers
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.training import Training
from batch_scoring_tests import engineered
from batch_scoring_tests.tiny import DAY, TinyProject, checks
from batch_scoring_tests.trained import CLASSES, labelled, net


def manifest_of(folder: Path) -> Any:  # noqa: ANN401
    return read_bundle(open_folder(str(folder))).manifest


# what a script gets


def test_a_pipeline_is_found_by_its_name() -> None:
    data = Training("customer_churn", pa.Table.from_batches([next(customers(pd.Timestamp("2024-01-01"), 200))]))
    assert data.pipeline == declared_pipeline("customer_churn")
    assert data.tensors["numeric"].shape == (200, 6) and data.tensors["categorical"].shape == (200, 0)


# what is learned, and from what


def test_other_rows_are_encoded_with_the_state_of_the_training_rows(tiny: TinyProject) -> None:
    data = Training(tiny.pipeline, labelled().filter(pc.not_equal(labelled()["c"], "red")))
    other = data.encode(tiny.rows(8))
    assert data.vocabularies == {"c": ["blue", "green"]}
    assert other.tensors["categorical"][:, 0].tolist() == [0, 2, 1, 0, 0, 0, 1, 0]  # red, green, blue, mauve, …
    with pytest.raises(UnsoundError, match=r"no row that the schema accepts; of 2: 2 x less_than"):
        data.encode(tiny.rows(2).set_column(1, "x", pa.array([9e9, 9e9])))


def test_a_repeated_key_without_days_says_what_to_do(tiny: TinyProject, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Training(tiny.pipeline, pa.concat_tables([tiny.rows(100), tiny.rows(100)]))
    assert "1 id key_is_unique; with the day of each row in dt, a key may occur once a day" in caplog.text.replace(
        "100 id", "1 id"
    )


# what is written


def test_a_bundle_is_whole_calibrated_and_scores_a_day(tiny: TinyProject) -> None:
    data = Training(tiny.pipeline, labelled(), held_out=8)
    network = net(data)
    sha256 = data.write(
        Path(tiny.data_root) / tiny.name / "models" / "v2",
        network,
        classes=CLASSES,
        metrics={"accuracy": 0.9},
        training={"seed": 0},
        expected=data.outputs(network).softmax(dim=1)[:, 1],
    )
    bundle = read_bundle(open_folder(f"{tiny.data_root}/{tiny.name}/models/v2"))
    found = bundle.manifest
    assert (bundle.sha256, found.version, found.name) == (sha256, "v2", tiny.name)
    assert found.arguments == {"numeric": 3, "words": 3, "outputs": 2}
    assert found.metrics == {"accuracy": 0.9}
    window = {"from": "2023-11-27", "to": "2023-12-28"}
    assert found.training == {**window, "rows": len(data), "validation": "every 8th day", "seed": 0}
    assert bundle.profile is not None and bundle.profile.days == 32
    assert bundle.reference.num_rows == len(data) + len(data.held_out)
    assert "left" not in bundle.reference.column_names
    golden = bundle.golden
    assert golden["y"].null_count == 0 < golden["c"].null_count
    assert golden.column_names == ["id", "x", "y", "n", "c", "output_0", "output_1"]
    tiny.spec["model"]["bundle"] = f"{tiny.name}/models/v2"
    tiny.write_spec()
    tiny.land(DAY, tiny.rows(300))
    assert all(passed for name, passed in checks(tiny.run()).items() if name.startswith("predictions/scores"))
    assert tiny.read()["model_version"].unique().to_pylist() == ["v2"]


def test_without_days_a_bundle_is_written_and_not_calibrated(
    tiny: TinyProject, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Training(tiny.pipeline, labelled().drop_columns("dt").slice(0, 60).append_column("n2", pa.nulls(60)))
    with pytest.raises(UnsoundError, match="the sample has 60 accepted rows; expected at least 64"):
        data.write(tmp_path / "v1", net(data), classes=CLASSES)
    data = Training(tiny.pipeline, labelled(days=10))
    with caplog.at_level(logging.WARNING):
        data.write(tmp_path / "v1", net(data), classes=CLASSES)
    assert "v1 is written, but not calibrated, so drift is not tested: " in caplog.text
    assert read_bundle(open_folder(str(tmp_path / "v1"))).profile is None


def test_a_copy_of_a_network_that_was_built_here_keeps_its_arguments(tiny: TinyProject, tmp_path: Path) -> None:
    data = Training(tiny.pipeline, labelled(days=10))
    best = copy.deepcopy(net(data))
    data.write(tmp_path / "copied", best, classes=CLASSES)
    own = type(best)(numeric=3, words=3, outputs=2)
    given = (
        r'data.network\(numeric=…\) in place of Net\(numeric=…\), or give write\(…, arguments={"numeric": …, "words"'
    )
    with pytest.raises(UnsoundError, match=given):
        data.write(tmp_path / "own", own, classes=CLASSES)
    with pytest.raises(BundleError, match=r"the network is a DataParallel, torch's own class; .*network.module"):
        data.write(tmp_path / "own", torch.nn.DataParallel(best), classes=CLASSES)
    data.write(tmp_path / "own", own, classes=CLASSES, arguments={"numeric": 3, "words": 3, "outputs": 2})
    assert manifest_of(tmp_path / "own").arguments == manifest_of(tmp_path / "copied").arguments


def test_other_tasks_are_heads_or_names(tiny: TinyProject, tmp_path: Path) -> None:
    data = Training(tiny.pipeline, labelled(days=10))
    torch.manual_seed(0)
    one = data.network(numeric=3, words=3, outputs=1)
    data.write(tmp_path / "one", one, task="regression", expected=data.outputs(one)[:, 0].tolist())
    three = data.network(numeric=3, words=3, outputs=3)
    levels = Quantiles(levels=(0.1, 0.5, 0.9))
    data.write(tmp_path / "three", three, task=levels, expected=data.outputs(three).numpy())
    assert manifest_of(tmp_path / "three").task == levels
    for options, message in (
        ({}, "neither classes nor task is given"),
        ({"classes": CLASSES, "task": levels}, "classes and task are given"),
        ({"classes": ["only"]}, "a classification has at least two"),
    ):
        with pytest.raises(UnsoundError, match=message):
            data.write(tmp_path / "none", three, **options)  # type: ignore[arg-type]


# skew


def test_a_large_sample_is_spread_over_its_days_and_always_the_same_way(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_scoring.training.REFERENCE_ROWS", 640)
    data = Training(tiny.pipeline, labelled(), held_out=8)
    network = net(data)
    scores = data.outputs(network).softmax(dim=1)[:, 1].numpy()
    table = data.rows.select(["id", "dt"]).append_column("prob_class_1", pa.array(scores))
    for expected in (scores, table, table.to_pandas()):
        data.write(tmp_path / "v2", network, classes=CLASSES, expected=expected)
    reference = read_bundle(open_folder(str(tmp_path / "v2"))).reference
    assert pc.value_counts(reference["dt"]).field("counts").to_pylist() == [20] * 32
    assert (spread(data.rows, 640) == spread(data.rows, 640)).all()
    wrong = table.set_column(2, "prob_class_1", pa.array(scores[::-1]))
    for expected in (scores[::-1], wrong):
        with pytest.raises(BundleError, match=r"of 560 rows are not as expected"):
            data.write(tmp_path / "v2", network, classes=CLASSES, expected=expected)
    strange = table.append_column("n", pa.array(["z"] * len(table)))
    strange = strange.set_column(0, "id", pc.binary_join_element_wise(strange["id"], "x", ""))
    with pytest.raises(BundleError, match="has rows whose id and dt is in neither reference nor golden"):
        data.write(tmp_path / "v2", network, classes=CLASSES, expected=strange)


@pytest.mark.parametrize(
    "skew",
    [
        lambda numeric: numeric[:, ::-1].copy(),  # columns in another order
        lambda numeric: np.where(np.isnan(numeric), np.nanmedian(numeric, axis=0) + 1, numeric),  # another median
        lambda numeric: np.nan_to_num(numeric / np.nanstd(numeric, axis=0)),  # scaled in the script alone
    ],
    ids=["order", "median", "scale"],
)
def test_skew_of_the_script_is_refused_with_row_and_column(
    tiny: TinyProject, tmp_path: Path, skew: Callable[[np.ndarray], np.ndarray]
) -> None:
    engineered.engineer(tiny)
    rows = labelled(days=10)
    rows = rows.set_column(2, "y", pa.array(rows["y"].to_numpy(), mask=np.arange(len(rows)) % 7 == 3))
    data = Training(tiny.pipeline, rows)
    network = net(data).eval()
    own = torch.from_numpy(skew(data.tensors["numeric"].numpy()).astype(np.float32))
    with torch.inference_mode():
        scores = network(own, data.tensors["categorical"]).softmax(dim=1)[:, 1]
    with pytest.raises(BundleError) as error:
        data.write(tmp_path / "v2", network, classes=CLASSES, expected=scores)
    assert "rows are not as expected:\n  id k00" in str(error.value) and "prob_class_1 is" in str(error.value)
    assert not (tmp_path / "v2").exists()
    data.write(tmp_path / "v2", network, classes=CLASSES, expected=data.outputs(network))


CLOCK = """
import pyarrow as pa
import pyarrow.compute as pc

def transform(rows: pa.RecordBatch, fitted: dict) -> dict:
    days = pc.divide(rows["n"], 86400)
    return {"hour": pc.divide(pc.cast(pc.subtract(rows["n"], pc.multiply(days, 86400)), "float64"), 3600.0)}
"""


def test_a_cast_to_float32_in_the_script_is_refused(tiny: TinyProject, tmp_path: Path) -> None:
    engineered.write_features(tiny, CLOCK)
    tiny.spec["features"] |= {"transform": "features:transform", "numeric": ["x", "hour"]}
    tiny.write_spec()
    rows = labelled(days=10)
    seconds = 1_700_000_000 + np.random.default_rng(0).integers(0, 86_400 * 5, len(rows))
    data = Training(tiny.pipeline, rows.set_column(3, "n", pa.array(seconds)))
    network = net(data).eval()
    numeric = data.tensors["numeric"].clone()
    numeric[:, 1] = torch.from_numpy(seconds.astype(np.float32) % 86_400 / 3_600)  # up to a minute away
    with torch.inference_mode():
        scores = network(numeric, data.tensors["categorical"]).softmax(dim=1)[:, 1]
    with pytest.raises(BundleError, match=r"rows are not as expected:\n  id k.* dt .*: prob_class_1 is "):
        data.write(tmp_path / "v2", network, classes=CLASSES, expected=scores)


def test_scores_of_other_rows_are_refused(tiny: TinyProject, tmp_path: Path) -> None:
    data = Training(tiny.pipeline, labelled(days=10))
    network = net(data)
    with pytest.raises(UnsoundError, match=r"expected has 599 rows; data.rows has 600: give one for each, in order"):
        data.write(tmp_path / "v2", network, classes=CLASSES, expected=data.outputs(network)[1:])
    with pytest.raises(UnsoundError, match=r"expected has the shape \(600, 3\); the network has 2 outputs a row"):
        data.write(tmp_path / "v2", network, classes=CLASSES, expected=np.zeros((600, 3)))
