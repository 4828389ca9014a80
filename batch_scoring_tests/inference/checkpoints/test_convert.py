"""A plain checkpoint becomes a bundle that scores the same, or is refused with a reason; it never runs."""

import os
import pickle
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from batch_scoring.config.loader import PROJECT, declared_pipeline
from batch_scoring.errors import CheckpointError, SpecError
from batch_scoring.inference.bundle import load_bundle
from batch_scoring.inference.checkpoints.convert import convert
from batch_scoring.pipelines.customer_churn.network import ChurnNet
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.tiny import TinyProject

MODELS = PROJECT / "data/customer_churn/models"
SAMPLE = pq.read_table(MODELS / "sample.parquet")
ARGUMENTS = {"input_dim": 6, "hidden_dim": 8, "output_dim": 2}
FIRST = "layers.0.weight"


class SideEffect:
    """Unpickling it creates a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.proof),)


def content(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """A sound checkpoint's entries, with some of them replaced."""
    torch.manual_seed(0)
    return {"model_state_dict": ChurnNet(**ARGUMENTS).state_dict(), "version": "v7", **ARGUMENTS, **changes}


def weights(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """A sound state dict with some of the weights replaced; names with __ for the dots."""
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    return {**content()["model_state_dict"], **changed}


def saved(folder: Path, entries: object) -> Path:
    file = folder / "model.pt"
    torch.save(entries, file)
    return file


def converted(checkpoint: Path, folder: Path, **changes: Any) -> str:  # noqa: ANN401
    options = {"sample": SAMPLE, "classes": ["stays", "leaves"], **changes}
    return convert(checkpoint, pipeline=declared_pipeline("customer_churn"), folder=folder, **options)


def refusal(checkpoint: Path, folder: Path, **changes: Any) -> str:  # noqa: ANN401
    """The message of the refusal; nothing may have been written."""
    with pytest.raises(CheckpointError) as raised:
        converted(checkpoint, folder / "bundle", **changes)
    assert not (folder / "bundle").exists()
    return str(raised.value)


def test_the_bundle_scores_as_the_checkpoint(tmp_path: Path) -> None:
    file = saved(tmp_path, content())
    sha256 = converted(file, tmp_path / "bundle", metrics={"auc": 0.5})
    model = load_bundle(open_folder(str(tmp_path / "bundle")), ChurnNet)
    assert model.sha256 == sha256
    assert model.manifest.version == "v7"
    assert model.manifest.arguments == ARGUMENTS
    assert model.manifest.task.class_names == ("stays", "leaves")
    assert model.manifest.metrics == {"auc": 0.5}
    assert model.manifest.training == {"from": "2023-10-01", "to": "2023-12-31"}
    own = ChurnNet(**ARGUMENTS)
    own.load_state_dict(content()["model_state_dict"])
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in model.network.state_dict().items())


def test_golden_rows_and_reference_come_from_the_sample(tmp_path: Path) -> None:
    converted(saved(tmp_path, content()), tmp_path / "bundle")
    golden, reference = (pq.read_table(tmp_path / "bundle" / f"{name}.parquet") for name in ("golden", "reference"))
    features = [name for name in SAMPLE.column_names if name != "dt"]
    assert golden.select(features).equals(SAMPLE.slice(0, 64).select(features))
    assert reference.select(SAMPLE.column_names).equals(SAMPLE)


def test_the_old_file_format_of_torch_is_read_too(tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    new = converted(saved(tmp_path, content()), tmp_path / "new")
    assert converted(tmp_path / "old.pt", tmp_path / "old") == new


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_with_code_does_not_run_it(tmp_path: Path, zipped: bool) -> None:
    proof = tmp_path / "it_ran"
    file = tmp_path / "evil.pt"
    torch.save(content(extra=SideEffect(proof)), file, _use_new_zipfile_serialization=zipped)
    message = refusal(file, tmp_path)
    assert "wants to import posix.mkdir" in message
    assert "evil.pt" in message
    assert not proof.exists()
    torch.load(file, weights_only=False)  # the side effect is real: this is what was prevented
    assert proof.exists()


def test_a_bare_pickle_does_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "it_ran"
    file = tmp_path / "evil.pkl"
    file.write_bytes(pickle.dumps(SideEffect(proof)))
    message = refusal(file, tmp_path)
    assert not proof.exists()
    assert "weights_only" not in message, "torch's advice is to switch the protection off"
    pickle.loads(file.read_bytes())
    assert proof.exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    message = refusal(saved(tmp_path, ChurnNet(**ARGUMENTS)), tmp_path)
    assert "batch_scoring.pipelines.customer_churn.network.ChurnNet" in message
    assert "state dict" in message


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    assert "TorchScript" in refusal(file, tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, zipped: bool, share: float) -> None:
    file = tmp_path / "model.pt"
    torch.save(content(), file, _use_new_zipfile_serialization=zipped)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    message = refusal(file, tmp_path)
    assert str(file) in message
    assert "whole file of torch.save" in message or "was not saved by torch.save" in message


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    file.write_text("hello world")
    assert "damaged or not a checkpoint" in refusal(file, tmp_path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "nowhere.pt cannot be read: No such file" in refusal(tmp_path / "nowhere.pt", tmp_path)


def test_a_bare_state_dict_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    file = saved(tmp_path, weights())
    wanted = """--arguments '{"input_dim": …, "hidden_dim": …, "output_dim": …}'"""
    assert f"ChurnNet needs input_dim, hidden_dim, output_dim: name {wanted}" in refusal(file, tmp_path)
    assert "has no version; add it" in refusal(file, tmp_path, arguments=ARGUMENTS)
    converted(file, tmp_path / "bundle", arguments=ARGUMENTS, version="v7")
    same = converted(saved(tmp_path, content()), tmp_path / "same")
    assert same == converted(file, tmp_path / "again", arguments=ARGUMENTS, version="v7")


def test_a_file_that_is_no_dict_is_refused(tmp_path: Path) -> None:
    assert "holds a list" in refusal(saved(tmp_path, [1, 2]), tmp_path)


@pytest.mark.parametrize("key", ["input_dim", "hidden_dim", "output_dim", "version"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    entries = content()
    del entries[key]
    message = refusal(saved(tmp_path, entries), tmp_path)
    assert f"has no {key};" in message and "add it to the dict that torch.save writes, or name" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hidden_dim": 8.0}, "hidden_dim is 8.0; expected a whole number"),
        ({"hidden_dim": True}, "hidden_dim is True; expected a whole number"),
        ({"hidden_dim": 0}, "hidden_dim is 0; expected a whole number"),
        ({"version": 7}, "version is 7; expected a name"),
        ({"version": ""}, "version is ''; expected a name"),
        ({"model_state_dict": [1.0]}, "holds no tensors by name but model_state_dict, version, input_dim"),
        ({"model_state_dict": {FIRST: 1.0}}, "holds no tensors by name"),
        ({"input_dim": 5}, "features.numeric of customer_churn names 6 features (age, "),
        ({"input_dim": 5}, "model.pt has 5 inputs (input_dim): name 5, in the order of the inputs"),
        ({"output_dim": 3}, "--classes names 2 classes (stays, leaves), but "),
        ({"output_dim": 3}, "model.pt has 3 outputs (output_dim): name 3, in the order of the outputs"),
        ({"output_dim": 1}, "model.pt has 1 output (output_dim): name 1, in"),
        ({"hidden_dim": 16}, f"{FIRST} has shape (8, 6); ChurnNet expects (16, 6)"),
        # compared without allocating: a network of this width would take 40 exabytes
        ({"hidden_dim": 10**9}, f"{FIRST} has shape (8, 6); ChurnNet expects (1000000000, 6)"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    assert expected in refusal(saved(tmp_path, content(**changes)), tmp_path)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"layers__0__weight": torch.zeros(8, 5)}, f"{FIRST} has shape (8, 5); ChurnNet expects (8, 6)"),
        ({"layers__9__weight": torch.zeros(1)}, "has layers.9.weight, which ChurnNet does not have"),
        (
            {"layers__0__weight": torch.full((8, 6), torch.nan)},
            f"{FIRST} has 48 of 48 values that are NaN or infinite",
        ),
        (
            {"mean": torch.tensor([0, 0, 0, 0, 0, torch.inf])},
            "mean has 1 of 6 values that are NaN or infinite",
        ),
        ({"layers__0__weight": torch.zeros(8, 6).double()}, f"{FIRST} is torch.float64"),
        (
            {"layers__0__weight": torch.zeros(8, 6).to_sparse()},
            f"{FIRST} is an object of torch._utils._rebuild_sparse_tensor; expected a dense tensor",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, changed: dict[str, torch.Tensor], expected: str) -> None:
    assert expected in refusal(saved(tmp_path, content(model_state_dict=weights(**changed))), tmp_path)


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    lacking = weights()
    del lacking[FIRST]
    message = refusal(saved(tmp_path, content(model_state_dict=lacking)), tmp_path)
    assert f"lacks {FIRST}, which ChurnNet needs" in message


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (SAMPLE.drop_columns(["dt", "age"]), "no column dt, age"),
        (
            SAMPLE.drop_columns("age").append_column("age", pa.array(["old"] * len(SAMPLE))),
            "the sample's age is string; expected a number",
        ),
        (SAMPLE.slice(0, 63), "has 63 rows; expected at least 64"),
        (SAMPLE.set_column(1, "dt", pa.array(["2024-01-01"] * len(SAMPLE))), "dt is string; expected a date"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(tmp_path: Path, sample: pa.Table, expected: str) -> None:
    assert expected in refusal(saved(tmp_path, content()), tmp_path, sample=sample)


def test_a_pipeline_with_categorical_features_needs_more_than_a_plain_checkpoint(tmp_path: Path) -> None:
    pipeline = declared_pipeline("flight_delay")
    with pytest.raises(CheckpointError, match="holds no vocabularies"):
        convert(
            saved(tmp_path, content()),
            pipeline=pipeline,
            sample=SAMPLE,
            classes=["a", "b"],
            folder=tmp_path / "bundle",
        )


def expected_rows(shift: float = 0.0) -> pa.Table:
    """What the training code gives for some rows of the sample: torch alone, on numpy's own matrix."""
    network = ChurnNet(**ARGUMENTS)
    network.load_state_dict(content()["model_state_dict"])
    rows = SAMPLE.slice(0, 200)
    features = declared_pipeline("customer_churn").spec.features.numeric
    numeric = torch.from_numpy(rows.select(list(features)).to_pandas().to_numpy("float32"))
    with torch.inference_mode():
        leaving = network(numeric, torch.empty(200, 0, dtype=torch.int64)).softmax(dim=1)[:, 1] + shift
    return rows.select(["id", "dt"]).append_column("prob_class_1", pa.array(leaving.numpy()))


def test_the_training_codes_own_numbers_are_compared(tmp_path: Path) -> None:
    file = saved(tmp_path, content())
    converted(file, tmp_path / "sound", expected=expected_rows())
    message = refusal(file, tmp_path, expected=expected_rows(0.01))
    first = SAMPLE["id"][0].as_py()
    assert f"expected: 200 of 200 rows are not as expected:\n  id {first} dt 2023-10-01: prob_class_1 " in message
    assert "not sound" not in message


def test_one_class_is_none(tmp_path: Path) -> None:
    one = ChurnNet(6, 8, 1).state_dict()
    message = refusal(saved(tmp_path, content(model_state_dict=one, output_dim=1)), tmp_path, classes=["leaves"])
    assert "classes are ['leaves']; a classification has at least two" in message
    assert "name both classes and say logits: 1" in message


SOFTMAX = """
import torch

class Net(torch.nn.Module):
    def __init__(self, input_dim, hidden_dim, output_dim):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(input_dim, output_dim), END)

    def forward(self, numeric, categorical):
        return self.layers(numeric.nan_to_num(0.0))
"""


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ("torch.nn.Softmax(dim=1)", "the network's outputs are probabilities already"),
        ("torch.nn.Sigmoid()", "the network's outputs are probabilities already"),
        ("torch.nn.Softmax(dim=0)", "depends on more than that row"),
        ("torch.nn.Flatten(0)", "output has shape (128,) for 64 rows; expected (64, 2)"),
        ("torch.nn.Linear(7, 2)", "the network raises RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_a_network_that_is_not_to_be_scored_with_is_refused_in_one_line(tiny: TinyProject, end: str, says: str) -> None:
    tiny.write_code(network=SOFTMAX.replace("END", end))
    tiny.spec["features"] |= {"categorical": []}
    tiny.write_spec()
    network = tiny.pipeline.load("network:Net")
    rows = tiny.rows(64).drop_columns("c")
    sample = rows.append_column("dt", pa.array([date(2024, 3, 1)] * 64))
    dimensions = {"input_dim": 3, "hidden_dim": 1, "output_dim": 2}
    file = saved(tiny.folder, {"model_state_dict": network(**dimensions).state_dict(), "version": "v1", **dimensions})
    with pytest.raises(CheckpointError) as raised:
        convert(file, pipeline=tiny.pipeline, sample=sample, classes=["no", "yes"], folder=tiny.folder / "b")
    assert says in str(raised.value) and "\n" not in str(raised.value)


def test_a_pipeline_that_is_not_there_is_an_error_of_the_spec() -> None:
    with pytest.raises(SpecError, match="no_such_pipeline"):
        declared_pipeline("no_such_pipeline")


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "x" * 900])
def test_hostile_names_stay_in_one_short_line(tmp_path: Path, name: str) -> None:
    message = refusal(saved(tmp_path, {name: torch.ones(1), "b": 1}), tmp_path, arguments=ARGUMENTS, version="v7")
    assert message.isprintable() and len(message) < 2500
    message = refusal(saved(tmp_path, {**weights(), name: torch.ones(1)}), tmp_path, arguments=ARGUMENTS, version="v7")
    assert message.isprintable() and len(message) < 2500


OF_VECTORS = """
import torch

class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(4, 2)

    def forward(self, vectors):
        return super().forward(vectors.nan_to_num(0.0))
"""


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        (pa.array([[0.1 * row, 1.0, 2.0, 3.0] for row in range(70)]), ""),
        (pa.array([None, *([0.1 * row, 1.0, 2.0, 3.0] for row in range(69))], pa.list_(pa.float64(), 4)), ""),
        (pa.array([1.0] * 70), "the sample's v is double; expected lists of numbers"),
        (pa.array([None] * 70, pa.list_(pa.float32())), "the sample's v is list<item: float>; expected lists"),
    ],
)
def test_vectors_have_the_length_of_the_samples_lists(tiny: TinyProject, vectors: pa.Array, says: str) -> None:
    tiny.write_code("class Rows:\n    id: str\n    v: list\n", OF_VECTORS)
    tiny.spec["features"] = {"schema": "schema:Rows", "vectors": ["v"]}
    tiny.write_spec()
    sample = tiny.rows(70).append_column("dt", pa.array([date(2024, 3, 1)] * 70)).append_column("v", vectors)
    file = saved(tiny.folder, torch.nn.Linear(4, 2).state_dict())
    options: dict[str, Any] = {"pipeline": tiny.pipeline, "classes": ["no", "yes"], "version": "v1"}
    if says:
        with pytest.raises(CheckpointError) as raised:
            convert(file, sample=sample, folder=tiny.folder / "b", **options)
        assert says in str(raised.value)
        return
    convert(file, sample=sample, folder=tiny.folder / "b", **options)
    manifest = load_bundle(open_folder(str(tiny.folder / "b")), tiny.pipeline.load("network:Net")).manifest
    assert manifest.vectors == {"v": 4}
