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
from batch_scoring.daily.model_code import model_code
from batch_scoring.errors import BatchScoringError, BundleError, UnsoundError
from batch_scoring.inference.bundle import load_bundle, read_bundle
from batch_scoring.inference.heads.quantiles import Quantiles
from batch_scoring.inference.inputs.encoder import Encoder
from batch_scoring.inference.scorer import Scorer
from batch_scoring.pipelines.customer_churn.data import customers
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.training import Training, _spread
from batch_scoring_tests import engineered
from batch_scoring_tests.text_models import letters, tokenizer
from batch_scoring_tests.tiny import DAY, TinyProject, checks, reference_rows

CLASSES = ["no", "yes"]


def labelled(days: int = 32, count: int = 60) -> pa.Table:
    rows = reference_rows(days=days, count=count)
    return rows.append_column("left", pa.array(np.where(rows["x"].to_numpy() > 0, "yes", "no")))


def net(data: Training, seed: int = 0) -> torch.nn.Module:
    """A network of the tiny pipeline that has learned a little."""
    torch.manual_seed(seed)
    words = max(map(len, data.vocabularies.values()))
    network = data.network(numeric=data.tensors["numeric"].shape[1], words=words, outputs=2)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    labels = data.labels("left", CLASSES)
    for tensors, rows in data.batches(256):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(**tensors), labels[rows]).backward()
        optimiser.step()
    return network


def manifest_of(folder: Path) -> Any:  # noqa: ANN401
    return read_bundle(open_folder(str(folder))).manifest


# what a script gets


def test_a_pipeline_is_found_by_its_name() -> None:
    data = Training("customer_churn", pa.Table.from_batches([next(customers(pd.Timestamp("2024-01-01"), 200))]))
    assert data.pipeline == declared_pipeline("customer_churn")
    assert data.tensors["numeric"].shape == (200, 6) and data.tensors["categorical"].shape == (200, 0)


@pytest.mark.parametrize("form", ["plain", "arrow", "pandas"])
def test_tensors_are_what_the_scorer_gives_the_network(tiny: TinyProject, tmp_path: Path, form: str) -> None:
    if form != "plain":
        engineered.engineer(tiny, form)
    data = Training(tiny.pipeline, labelled())
    data.write(tmp_path / "v2", net(data), classes=CLASSES)
    model = load_bundle(open_folder(str(tmp_path / "v2")), model_code(tiny.pipeline))
    rows = model.with_engineered(data.rows.select(["id", "x", "y", "n", "c"])).combine_chunks().to_batches()[0]
    encoded = Encoder(model).encode(rows).groups[0]
    assert [*data.tensors] == ["numeric", "categorical"]
    for name, values in data.tensors.items():
        assert np.array_equal(values.numpy(), encoded.tensors[name][: len(data)], equal_nan=True), name


def test_keys_of_tensors_are_the_names_of_forward_s_parameters(tiny: TinyProject) -> None:
    code = (tiny.folder / "network.py").read_text()
    tiny.write_code(network=code.replace("numeric, categorical)", "values, codes)").replace("numeric[", "values["))
    assert [*Training(tiny.pipeline, labelled()).tensors] == ["values", "codes"]
    tiny.write_code(network=code.replace("numeric, categorical)", "numeric, categorical, picture)"))
    with pytest.raises(UnsoundError, match="nothing fills picture"):
        _ = Training(tiny.pipeline, labelled()).tensors


def test_rows_that_scoring_would_not_score_are_rejected_with_their_reasons(
    tiny: TinyProject, caplog: pytest.LogCaptureFixture
) -> None:
    engineered.engineer(tiny)
    rows = tiny.rows(200)
    x, y = rows["x"].to_pylist(), rows["y"].to_pylist()
    x[3], x[10], x[20], y[20], y[30] = 2_000.0, 777.0, 900.0, 0.0, 1e39
    sample = rows.set_column(1, "x", pa.array(x)).set_column(2, "y", pa.array(y))
    with caplog.at_level(logging.WARNING):
        data = Training(tiny.pipeline, sample)
    found = [(row["row_number"], row["stage"], row["column"], row["rule"]) for row in data.rejected.to_pylist()]
    assert found == [
        (4, "rule", "x", "less_than_or_equal_to(1000)"),
        (11, "score", "", "transform_raises"),
        (21, "score", "ratio", "less_than_or_equal_to(500)"),
        (31, "score", "", "input_is_finite"),
    ]
    assert "1 of 200 rows are rejected, as scoring would: 1 x less_than_or_equal_to(1000)" in caplog.text
    assert len(data) == 196 == len(data.tensors["numeric"])
    assert not {"k0000003", "k0000010", "k0000020", "k0000030"} & {*data.rows["id"].to_pylist()}


def test_labels_are_positions_of_classes_or_numbers(tiny: TinyProject) -> None:
    more = {"flag": [True, False] * 30, "score": [1.5] * 60, "grade": [3, 4] * 30, "gap": [None, 1] * 30}
    rows = tiny.rows(60)
    for name, values in more.items():
        rows = rows.append_column(name, pa.array(values))
    data = Training(tiny.pipeline, rows)
    assert data.labels("flag", [False, True]).tolist() == [1, 0] * 30
    assert data.labels("grade", [4, 3]).tolist() == data.labels("grade", ["4", "3"]).tolist() == [1, 0] * 30
    assert data.labels("score").dtype == torch.float32 and data.labels("flag").tolist() == [1.0, 0.0] * 30
    for column, classes, message in (
        ("nothing", None, "no column nothing; it has id, x, y, n, c, flag"),
        ("gap", None, "30 of 60 rows have no gap; leave them out of the sample"),
        ("grade", [3], r"grade has '4'; the classes are 3"),
        ("id", None, "id is string; expected numbers"),
    ):
        with pytest.raises(UnsoundError, match=message):
            data.labels(column, classes)


def test_an_epoch_has_every_row_once_in_another_order_for_another_seed(tiny: TinyProject) -> None:
    data = Training(tiny.pipeline, labelled())
    epochs = [[rows for _, rows in data.batches(256, seed=seed)] for seed in (0, 0, 1)]
    assert sorted(torch.cat(epochs[0]).tolist()) == list(range(len(data)))
    assert torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[2]))
    assert {len(rows) for rows in epochs[0]} == {256, len(data) % 256}
    for tensors, rows in data.batches(256):
        assert torch.equal(tensors["categorical"], data.tensors["categorical"][rows])


def test_outputs_are_those_of_evaluation_mode_and_the_network_stays_in_training(tiny: TinyProject) -> None:
    data = Training(tiny.pipeline, labelled())
    network = net(data)
    network.layers.insert(1, torch.nn.Dropout(0.5))  # type: ignore[union-attr, operator]
    assert network.training
    found = data.outputs(network)
    assert network.training and torch.equal(found, data.outputs(network))
    torch.testing.assert_close(found, network.eval()(**data.tensors).detach(), rtol=1e-5, atol=1e-6)


# what is learned, and from what


def test_nothing_is_learned_from_rows_that_are_held_out(tiny: TinyProject) -> None:
    engineered.engineer(tiny)
    rows = labelled(days=16)
    late = pc.equal(rows["dt"], sorted(set(rows["dt"].to_pylist()))[7])
    c, y = (pc.if_else(late, value, rows[name]) for name, value in (("c", "violet"), ("y", 1e6)))
    rows = rows.set_column(4, "c", c).set_column(2, "y", y)
    tiny.spec["features"]["categorical"] = ["shade", "c"]
    tiny.write_spec()
    data = Training(tiny.pipeline, rows, held_out=8)
    assert data.vocabularies["c"] == ["blue", "green", "red"]
    assert data.fitted["y"] < 20
    assert pc.unique(data.held_out.rows["dt"]).to_pylist() == [
        day for number, day in enumerate(sorted(set(rows["dt"].to_pylist()))) if number % 8 == 7
    ]
    assert len(data) + len(data.held_out) == rows.num_rows
    assert (data.held_out.tensors["categorical"][:60, 1] == 0).all()
    assert data.held_out.rows["ratio"].to_pylist()[0] == pytest.approx(data.held_out.rows["x"][0].as_py() / (1e6 + 1))


def test_fit_is_called_once_with_all_columns_of_the_training_rows(tiny: TinyProject) -> None:
    engineered.engineer(tiny)
    text = engineered.FEATURES["arrow"].replace(
        '"warm":', '"columns": rows.column_names, "rows": len(rows), "calls": calls.append(1) or len(calls), "warm":'
    )
    engineered.write_features(tiny, "calls = []\n" + text)
    data = Training(tiny.pipeline, labelled(), held_out=8)
    assert len(data.encode(labelled(days=2))) == 120
    assert data.fitted["columns"] == ["id", "x", "y", "n", "c", "dt", "left"]
    assert (data.fitted["rows"], data.fitted["calls"]) == (len(data), 1)


def test_other_rows_are_encoded_with_the_state_of_the_training_rows(tiny: TinyProject) -> None:
    data = Training(tiny.pipeline, labelled().filter(pc.not_equal(labelled()["c"], "red")))
    other = data.encode(tiny.rows(8))
    assert data.vocabularies == {"c": ["blue", "green"]}
    assert other.tensors["categorical"][:, 0].tolist() == [0, 2, 1, 0, 0, 0, 1, 0]  # red, green, blue, mauve, …
    with pytest.raises(UnsoundError, match=r"no row that the schema accepts; of 2: 2 x less_than"):
        data.encode(tiny.rows(2).set_column(1, "x", pa.array([9e9, 9e9])))


def test_rows_are_held_out_one_by_one_where_there_are_few_days(tiny: TinyProject) -> None:
    data = Training(tiny.pipeline, tiny.rows(100), held_out=5)
    assert data.held_out.rows["id"].to_pylist() == [f"k{number:07d}" for number in range(4, 100, 5)]
    with pytest.raises(UnsoundError, match="no rows are held out; hold out every 8th day with"):
        _ = Training(tiny.pipeline, tiny.rows(100)).held_out
    for every, message in ((1, "held_out is 1; expected 2 or more"), (500, "held_out is 500, and the sample has 100")):
        with pytest.raises(UnsoundError, match=message):
            Training(tiny.pipeline, tiny.rows(100), held_out=every)


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
    assert (_spread(data.rows, 640) == _spread(data.rows, 640)).all()
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


# texts, vectors, the pipeline's own encoder


LETTERS = """
import pandera.pandas as pa

class Rows(pa.DataFrameModel):
    id: str
    x: float
    title: str = pa.Field(nullable=True)
    body: str = pa.Field(nullable=True)
"""
READER = """
from batch_scoring_tests.text_models import Attention

class Net(Attention):
    pass
"""


def with_letters(tiny: TinyProject) -> pa.Table:
    tiny.spec["features"] = {"schema": "schema:Rows", "numeric": ["x"], "text": ["title", "body"]}
    tiny.write_code(LETTERS, READER)
    tiny.write_spec()
    rows = pa.Table.from_batches([letters(600)])
    return rows.append_column(
        "left", pa.array(["yes" if "cat" in (b or "") else "no" for b in rows["body"].to_pylist()])
    )


def test_texts_of_a_batch_have_the_width_that_scoring_gives_them(tiny: TinyProject, tmp_path: Path) -> None:
    rows = with_letters(tiny)
    data = Training(tiny.pipeline, rows, held_out=5, tokenizer=tokenizer(), longest=48)
    assert data.vocabulary_size == 17
    widths: dict[int, int] = {}
    for tensors, positions in data.batches(32):
        assert [*tensors] == ["tokens", "numeric"]
        assert torch.equal(tensors["numeric"], data.tensors["numeric"][positions])
        widths |= dict.fromkeys(positions.tolist(), tensors["tokens"].shape[1])
        whole = data.tensors["tokens"][positions]
        assert torch.equal(tensors["tokens"], whole[:, : tensors["tokens"].shape[1]]) and not whole[:, 48:].any()
    assert {*widths.values()} == {16, 32, 48} and len(widths) == len(data)
    network = data.network(outputs=2)
    data.write(tmp_path / "v1", network, classes=CLASSES, expected=data.outputs(network))
    model = load_bundle(open_folder(str(tmp_path / "v1")), model_code(tiny.pipeline))
    groups = Encoder(model).encode(data.rows.combine_chunks().to_batches()[0]).groups
    assert {int(row): group.cells for group in groups for row in group.positions} == widths  # type: ignore[union-attr]
    scored = Scorer(model, device="cpu").outputs(data.rows)
    np.testing.assert_allclose(scored, data.outputs(network).numpy(), atol=1e-6)


def test_a_tokenizer_is_needed_and_learned_once_from_training_rows(tiny: TinyProject, tmp_path: Path) -> None:
    rows = with_letters(tiny)
    late = rows.append_column("n", pa.array(range(600)))
    held = pc.equal(pc.bit_wise_and(late["n"], 1), 1)
    rows = rows.set_column(2, "body", pc.if_else(held, "xylophone xylophone", rows["body"]))
    data = Training(tiny.pipeline, rows, held_out=2)
    with pytest.raises(UnsoundError, match=r"needs a tokenizer: give tokenizer=, or call train_tokenizer\(\)"):
        _ = data.tensors
    with pytest.raises(UnsoundError, match="needs a tokenizer"):
        data.write(tmp_path / "v1", data.network(outputs=2), classes=CLASSES)
    content = data.train_tokenizer(60)
    assert b"xy" not in content and data.tokenizer == content
    assert [*data.tensors] == ["tokens", "numeric"] and len(data.held_out.tensors["tokens"]) == 300
    with pytest.raises(UnsoundError, match="has a tokenizer already"):
        data.train_tokenizer()
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content)
    again = Training(tiny.pipeline, rows, held_out=2, tokenizer=file)
    assert torch.equal(again.tensors["tokens"], data.tensors["tokens"])


def test_a_pipeline_without_texts_has_no_tokenizer(tiny: TinyProject) -> None:
    data = Training(tiny.pipeline, tiny.rows(64))
    assert data.tokenizer is None and data.vocabulary_size == 0
    with pytest.raises(UnsoundError, match=r"names no text columns in features.text"):
        data.train_tokenizer()
    assert issubclass(UnsoundError, BatchScoringError)
