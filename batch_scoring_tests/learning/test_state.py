"""The inputs that training code gets are those of scoring, and what is learned comes from training rows."""

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from batch_scoring.daily.model_code import model_code
from batch_scoring.errors import BatchScoringError, UnsoundError
from batch_scoring.inference.bundle import load_bundle, read_bundle
from batch_scoring.inference.inputs.encoder import Encoder
from batch_scoring.inference.scorer import Scorer
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.training import Training
from batch_scoring_tests import engineered
from batch_scoring_tests.end_to_end import test_days_of_any_input as any_input
from batch_scoring_tests.text_models import letters, tokenizer
from batch_scoring_tests.tiny import TinyProject
from batch_scoring_tests.trained import CLASSES, labelled, net


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
    assert "1 of 200 rows are rejected, as in scoring: 1 x less_than_or_equal_to(1000)" in caplog.text
    assert len(data) == 196 == len(data.tensors["numeric"])
    assert not {"k0000003", "k0000010", "k0000020", "k0000030"} & {*data.rows["id"].to_pylist()}


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
    assert {*widths.values()} == {8, 16, 24, 32, 40, 48} and len(widths) == len(data)
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


def test_texts_vectors_pictures_and_numbers_are_trained_on_together(tiny: TinyProject, tmp_path: Path) -> None:
    tiny.write_code(any_input.SCHEMA, any_input.NETWORK)
    (tiny.folder / "encoder.py").write_text(any_input.ENCODER)
    inputs = {"numeric": ["x"], "text": ["title", "body"], "vectors": ["meaning"], "encode": "encoder:encode"}
    tiny.spec["features"] = {"schema": "schema:Rows", **inputs}
    tiny.write_spec()
    rows = pa.concat_tables(any_input.days(30))
    photos, meanings = rows["photo"].to_pylist(), rows["meaning"].to_pylist()
    photos[0], meanings[1] = b"no picture", [1.0] * 4
    rows = rows.set_column(rows.column_names.index("photo"), "photo", pa.array(photos))
    rows = rows.set_column(rows.column_names.index("meaning"), "meaning", pa.array(meanings))
    data = Training(tiny.pipeline, rows, held_out=8, tokenizer=tokenizer())
    assert sorted(data.rejected["rule"].to_pylist()) == ["encode_raises", "input_has_size"]
    shapes = {name: tuple(values.shape[1:]) for name, values in data.tensors.items()}
    assert shapes == {"tokens": (96,), "numeric": (1,), "vectors": (3,), "light": (1,)}
    network = data.network(words=data.vocabulary_size)
    data.write(tmp_path / "v1", network, classes=["a", "b", "c"], expected=data.outputs(network))
    bundle = read_bundle(open_folder(str(tmp_path / "v1")))
    assert bundle.manifest.vectors == {"meaning": 3} and [*bundle.manifest.arrays] == ["light"]
    assert bundle.profile is not None
    model = load_bundle(open_folder(str(tmp_path / "v1")), model_code(tiny.pipeline))
    found = Scorer(model, device="cpu").outputs(data.rows.select(model.columns))
    np.testing.assert_allclose(found, data.outputs(network).numpy(), atol=1e-6)


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
