"""Ways in which a delivered bundle can be broken, each with what the error message must say."""

import hashlib
import json
import math
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch

from batch_scoring.inference.reference_profile import ColumnProfile, ReferenceProfile, Scores

PROOF = "code_of_the_bundle_has_run"
"""A file of this name appears beside the bundle if its contents are ever executed."""


@dataclass(frozen=True)
class Fault:
    """One way to break a bundle of the tiny pipeline."""

    spoil: Callable[[Path], None]
    says: tuple[str, ...]
    """Parts of the error message: where, what was found, what was expected."""
    check: str = "bundle_is_intact"
    """The check that fails."""


class SideEffect:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.proof),)


def seal(folder: Path) -> None:
    """Update the sha256 in the manifest to the current files, so that only their content is wrong."""
    change_manifest(
        folder, lambda m: {**m, "files": {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in m["files"]}}
    )


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Rewrite bundle.json."""
    file = folder / "bundle.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def change_task(folder: Path, **changes: Any) -> None:  # noqa: ANN401
    """Rewrite fields of the head in bundle.json."""
    change_manifest(folder, lambda m: {**m, "task": {**m["task"], **changes}})


def as_format_1(folder: Path, **changes: Any) -> None:  # noqa: ANN401
    """Rewrite bundle.json as it was written before tasks had heads."""

    def change(manifest: dict[str, Any]) -> dict[str, Any]:
        head = manifest["task"]
        return {**manifest, "format": 1, "task": head["kind"], "classes": head.get("classes", []), **changes}

    change_manifest(folder, change)


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Rewrite model.safetensors and its sha256."""
    file = folder / "model.safetensors"
    file.write_bytes(safetensors.torch.save(change(safetensors.torch.load(file.read_bytes()))))
    seal(folder)


def change_golden(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rewrite golden.parquet and its sha256."""
    file = folder / "golden.parquet"
    pq.write_table(change(pq.read_table(file)), file)
    seal(folder)


def change_reference(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rewrite reference.parquet and its sha256."""
    file = folder / "reference.parquet"
    pq.write_table(change(pq.read_table(file)), file)
    seal(folder)


def add_profile(folder: Path, content: str) -> None:
    """Add a profile.json to the bundle."""
    (folder / "profile.json").write_text(content)
    change_manifest(folder, lambda m: {**m, "files": {**m["files"], "profile.json": ""}})
    seal(folder)


def profile_of(*features: str, **changes: Any) -> str:  # noqa: ANN401
    """Return a well-formed reference profile of some numeric features."""
    column = ColumnProfile(kind="numeric", grain="row", day=0.1, sampling=1.0, trailing=None, missing=1.0)
    days = Scores(confidence=None, confidence_sd=0.1, spread=None, largest_class=None)
    profile = ReferenceProfile(
        first="2024-01-01",
        last="2024-03-31",
        days=91,
        rows=60,
        weekends_apart=False,
        factor=1.2,
        scores={},
        columns=dict.fromkeys(features, column),
        left_out={},
        everyday={},
        score_days=days,
        held_out=(),
        share_alarms=0.0,
        exceeding={},
    )
    return json.dumps({**profile.model_dump(mode="json"), **changes})


def vocabulary(folder: Path, *words: str) -> None:
    change_manifest(folder, lambda m: {**m, "categorical": {"c": list(words)}})


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def write_pickle(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(SideEffect(folder.parent / PROOF)))
    seal(folder)


def write_torch_pickle(folder: Path) -> None:
    torch.save({"weights": SideEffect(folder.parent / PROOF)}, folder / "model.safetensors")
    seal(folder)


def truncate(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def truncate_and_seal(folder: Path) -> None:
    truncate(folder / "model.safetensors", 100)
    seal(folder)


def spoil_golden_bytes(folder: Path) -> None:
    """Write a file that is Parquet only in its first and last bytes."""
    (folder / "golden.parquet").write_bytes(b"PAR1" + b"\x07" * 64 + b"\x10\0\0\0PAR1")
    seal(folder)


def golden_output(table: pa.Table, change: Callable[[np.ndarray], np.ndarray]) -> pa.Table:
    place = table.column_names.index("output_0")
    return table.set_column(place, "output_0", pa.array(change(table["output_0"].to_numpy().copy())))


def one_is_nan(values: np.ndarray) -> np.ndarray:
    values[7] = np.nan
    return values


LAYER = "layers.0.weight"

FAULTS = {
    # the files
    "weights_missing": Fault(
        lambda f: (f / "model.safetensors").unlink(), ("model.safetensors is missing", "bundle.json says")
    ),
    "golden_missing": Fault(lambda f: (f / "golden.parquet").unlink(), ("golden.parquet is missing",)),
    "reference_missing": Fault(lambda f: (f / "reference.parquet").unlink(), ("reference.parquet is missing",)),
    "another_sha256": Fault(
        lambda f: flip_a_byte(f / "model.safetensors"), ("/model.safetensors has sha256", "bundle.json says", "deliver")
    ),
    "reference_of_another_sha256": Fault(
        lambda f: flip_a_byte(f / "reference.parquet"), ("/reference.parquet has sha256", "bundle.json says")
    ),
    "truncated": Fault(
        lambda f: truncate(f / "model.safetensors", 100), ("/model.safetensors has sha256", "(100 bytes)", "truncated")
    ),
    # the manifest
    "no_json": Fault(lambda f: truncate(f / "bundle.json", 50), ("/bundle.json is not a manifest", "JSON")),
    "unknown_field": Fault(
        lambda f: change_manifest(f, lambda m: {**m, "pickle": "model.pkl"}),
        ("is not a manifest", "pickle: Extra inputs"),
    ),
    "no_version": Fault(
        lambda f: change_manifest(f, lambda m: {k: v for k, v in m.items() if k != "version"}),
        ("is not a manifest", "version: Field required"),
    ),
    "unknown_task": Fault(
        lambda f: change_manifest(f, lambda m: {**m, "task": {"kind": "ranking"}}),
        ("is not a manifest", "task", "classification"),
    ),
    "newer_format": Fault(
        lambda f: change_manifest(f, lambda m: {**m, "format": 3, "task": {"kind": "ranking"}}),
        ("is not a manifest", "format is 3; this version reads 1 and 2: update batch_scoring"),
    ),
    "unknown_task_of_before": Fault(
        lambda f: as_format_1(f, task="ranking"),
        ("is not a manifest", "task", "classification"),
    ),
    "one_class_of_before": Fault(
        lambda f: as_format_1(f, classes=["defaults"]),
        ("is not a manifest", "classes are ['defaults']", "at least two"),
    ),
    "file_not_named": Fault(
        lambda f: change_manifest(f, lambda m: {**m, "files": {"model.safetensors": "0" * 64}}),
        ("files names no golden.parquet, reference.parquet",),
    ),
    "file_outside": Fault(
        lambda f: change_manifest(f, lambda m: {**m, "files": {**m["files"], "../../landing/x": "0" * 64}}),
        ("'../../landing/x'", "the bundle's own folder"),
    ),
    "metric_nan": Fault(
        lambda f: change_manifest(f, lambda m: {**m, "metrics": {"auc": math.nan}}),
        ("is not a manifest", "metrics.auc", "finite number, found nan"),
    ),
    "training_infinite": Fault(
        lambda f: change_manifest(f, lambda m: {**m, "training": {"loss": [0.5, -math.inf]}}),
        ("is not a manifest", "training: loss.1 is -inf"),
    ),
    "argument_nan": Fault(
        lambda f: change_manifest(f, lambda m: {**m, "arguments": {**m["arguments"], "scale": {"x": math.nan}}}),
        ("is not a manifest", "arguments: scale.x is nan"),
    ),
    "tolerance_infinite": Fault(
        lambda f: change_manifest(f, lambda m: {**m, "golden_tolerance": math.inf}),
        ("is not a manifest", "golden_tolerance", "finite number, found inf"),
    ),
    "tolerance_nan": Fault(
        lambda f: change_manifest(f, lambda m: {**m, "golden_tolerance": {"absolute": 1e-5, "relative": math.nan}}),
        ("is not a manifest", "golden_tolerance", "relative", "finite number, found nan"),
    ),
    "tolerance_of_anything": Fault(
        lambda f: change_manifest(f, lambda m: {**m, "golden_tolerance": 1e30}),
        ("/bundle.json: golden_tolerance (1e+30)", "does not check golden outputs from"),
        "golden_rows_agree",
    ),
    "relative_tolerance_of_anything": Fault(
        lambda f: change_manifest(f, lambda m: {**m, "golden_tolerance": {"relative": 50.0}}),
        ("/bundle.json: golden_tolerance (50 of the size)", "does not check golden outputs from"),
        "golden_rows_agree",
    ),
    "one_class": Fault(
        lambda f: change_task(f, classes=["defaults"]),
        ("is not a manifest", "classes are ['defaults']", "at least two", "say logits: 1"),
    ),
    "class_twice": Fault(
        lambda f: change_task(f, classes=["no", "no"]),
        ("is not a manifest", "classes: 'no' occurs twice"),
    ),
    "word_twice": Fault(lambda f: vocabulary(f, "red", "green", "red"), ("categorical.c: 'red' occurs twice",)),
    # the vocabularies, and their comparison with the rows
    "vocabulary_longer_than_the_embedding": Fault(
        lambda f: vocabulary(f, "red", "green", "blue", "pink", "grey"),
        ("the vocabulary of c has 5 words", "accepts codes to 3", "needs 6 rows"),
    ),
    "vocabulary_of_another_spelling": Fault(
        lambda f: vocabulary(f, "Red", " green", "blue"),
        ("/reference.parquet: the vocabulary of c has", "'Red' in place of 'red'", "' green' in place of 'green'"),
    ),
    "vocabulary_of_another_column": Fault(
        lambda f: vocabulary(f, "north", "east", "south"),
        ("/reference.parquet: the vocabulary of c is not that of the rows: 0 of 60", "'red'", "'north'"),
    ),
    # the reference and its profile
    "reference_without_rows": Fault(
        lambda f: change_reference(f, lambda t: t.slice(0, 0)),
        ("/reference.parquet: it has no rows", "training window"),
    ),
    "reference_without_feature": Fault(
        lambda f: change_reference(f, lambda t: t.drop_columns(["y"])), ("/reference.parquet: it has no column y",)
    ),
    "reference_without_category": Fault(
        lambda f: change_reference(f, lambda t: t.drop_columns(["c"])), ("/reference.parquet: it has no column c",)
    ),
    "reference_without_scores": Fault(
        lambda f: change_reference(f, lambda t: t.drop_columns(["prob_class_1"])),
        ("/reference.parquet: it has no column prob_class_1",),
    ),
    "reference_column_twice": Fault(
        lambda f: change_reference(f, lambda t: t.append_column("x", t["y"])),
        ("/reference.parquet: it has two columns x",),
    ),
    "reference_of_text": Fault(
        lambda f: change_reference(f, lambda t: t.set_column(1, "x", t["x"].cast(pa.string()))),
        ("/reference.parquet: column x is string; expected numbers",),
    ),
    "reference_scores_nan": Fault(
        lambda f: change_reference(
            f, lambda t: t.set_column(t.column_names.index("prob_class_1"), "prob_class_1", [[math.nan] * len(t)])
        ),
        ("/reference.parquet: 64 of 64 values of prob_class_1 are not scores",),
    ),
    "profile_no_json": Fault(
        lambda f: add_profile(f, "{"), ("/profile.json is not a reference profile", "JSON", "calibrate")
    ),
    "profile_of_another_form": Fault(
        lambda f: add_profile(f, profile_of("x", days="many")), ("/profile.json is not a reference profile: days",)
    ),
    "profile_nan": Fault(
        lambda f: add_profile(f, profile_of("x", factor=math.nan)),
        ("/profile.json is not a reference profile: factor", "finite number, found nan"),
    ),
    "profile_of_other_features": Fault(
        lambda f: add_profile(f, profile_of("x", "y", "age")),
        ("/profile.json: it has thresholds of age, not a numeric feature of the model",),
    ),
    "profile_of_another_kind": Fault(
        lambda f: add_profile(f, profile_of("x", "c")),
        ("/profile.json: it has thresholds of c, not a numeric feature of the model",),
    ),
    "profile_of_other_scores": Fault(
        lambda f: add_profile(f, profile_of("x", scores={"prob_class_7": json.loads(profile_of("x"))["columns"]["x"]})),
        ("/profile.json: it has thresholds of prob_class_7; the model's scores are prob_class_1",),
    ),
    "profile_of_other_words": Fault(
        lambda f: add_profile(f, profile_of("x", everyday={"colour": {"red": 0.3}})),
        ("/profile.json: it has everyday values of colour, not a categorical feature of the model",),
    ),
    # the weights, with the right sha256
    "pickle": Fault(write_pickle, ("model.safetensors is not a safetensors file",)),
    "torch_pickle": Fault(write_torch_pickle, ("model.safetensors is not a safetensors file",)),
    "truncated_when_written": Fault(truncate_and_seal, ("model.safetensors is not a safetensors file",)),
    "another_shape": Fault(
        lambda f: change_weights(f, lambda w: {**w, LAYER: w[LAYER][:, :-1].contiguous()}),
        (f"{LAYER} has shape (16, 6); Net expects (16, 7)",),
    ),
    "weight_missing": Fault(
        lambda f: change_weights(f, lambda w: {k: v for k, v in w.items() if k != LAYER}), (f"lacks {LAYER}", "Net")
    ),
    "weight_extra": Fault(
        lambda f: change_weights(f, lambda w: {**w, "head.bias": torch.ones(2)}), ("has head.bias", "does not have")
    ),
    "nan_weight": Fault(
        lambda f: change_weights(f, lambda w: {**w, LAYER: w[LAYER].index_fill(1, torch.tensor([2]), torch.nan)}),
        (f"{LAYER} has 16 of 112 values that are NaN or infinite",),
    ),
    "infinite_weight": Fault(
        lambda f: change_weights(f, lambda w: {**w, LAYER: w[LAYER].index_fill(0, torch.tensor([0]), torch.inf)}),
        (f"{LAYER} has 7 of 112 values that are NaN or infinite",),
    ),
    "unknown_argument": Fault(
        lambda f: change_manifest(f, lambda m: {**m, "arguments": {**m["arguments"], "depth": 3}}),
        ("Net(", "'depth': 3", "failed", "unexpected keyword argument"),
    ),
    "two_terabytes": Fault(  # compared without allocating memory
        lambda f: change_manifest(f, lambda m: {**m, "arguments": {**m["arguments"], "words": 10**11}}),
        ("word.weight has shape (4, 4); Net expects (100000000001, 4)",),
    ),
    "halves": Fault(
        lambda f: change_weights(f, lambda w: {k: v.half() for k, v in w.items()}),
        ("word.weight and 4 more are torch.float16; Net expects torch.float32: save the network after network.to",),
    ),
    # the golden rows
    "other_weights": Fault(
        lambda f: change_weights(f, lambda w: {**w, LAYER: w[LAYER] * 1.01}),
        ("the golden rows differ by", "at most"),
        "golden_rows_agree",
    ),
    "other_golden_outputs": Fault(
        lambda f: change_golden(f, lambda t: golden_output(t, lambda v: v + np.float32(0.01))),
        ("the golden rows differ by 0.01", "at most"),
        "golden_rows_agree",
    ),
    "golden_outputs_nan": Fault(
        lambda f: change_golden(f, lambda t: golden_output(t, one_is_nan)),
        ("golden.parquet", "finite"),
        "golden_rows_agree",
    ),
    "golden_outputs_absent": Fault(
        lambda f: change_golden(f, lambda t: t.drop_columns(["output_1"])),
        ("/golden.parquet has no column output_1", "expected output_0, output_1"),
        "golden_rows_agree",
    ),
    "golden_outputs_text": Fault(
        lambda f: change_golden(
            f, lambda t: t.set_column(t.column_names.index("output_0"), "output_0", t["output_0"].cast(pa.string()))
        ),
        ("/golden.parquet: column output_0 is string; expected numbers",),
        "golden_rows_agree",
    ),
    "golden_column_twice": Fault(
        lambda f: change_golden(f, lambda t: t.append_column("x", t["y"])),
        ("/golden.parquet: it has two columns x",),
        "golden_rows_agree",
    ),
    "golden_rows_absent": Fault(
        lambda f: change_golden(f, lambda t: t.slice(0, 0)),
        ("/golden.parquet", "0 rows", "expected 64"),
        "golden_rows_agree",
    ),
    "golden_feature_absent": Fault(
        lambda f: change_golden(f, lambda t: t.drop_columns(["y"])),
        ("/golden.parquet", "no column y"),
        "golden_rows_agree",
    ),
    "golden_no_parquet": Fault(spoil_golden_bytes, ("/golden.parquet is not a Parquet file",), "golden_rows_agree"),
    "more_classes_than_outputs": Fault(
        lambda f: change_task(f, classes=["0", "1", "2"]),
        ("has no column",),  # of the scores in the reference, or of the golden outputs
    ),
}
