"""Conversion of a plain checkpoint into a bundle.

A plain checkpoint is the usual output of a training script: `torch.save` of a dict with `model_state_dict`,
`input_dim`, `hidden_dim`, `output_dim` and `version`. It is a pickle, so it is read with `weights_only=True`
(nothing in it can run), checked against the pipeline's own network class, and never used again: scoring reads
bundles. `bundle.py` says what a bundle is.

    batch-scoring checkpoint --pipeline customer_churn --checkpoint churn.pt \
        --sample sample.parquet --classes stays leaves --expected expected.parquet --out data/customer_churn/models/v1
"""

import re
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import BundleError, CheckpointError, UnsoundError
from batch_scoring.inference.acceptance.eager import summary
from batch_scoring.inference.bundle import GOLDEN_ROWS, write_bundle
from batch_scoring.inference.network import weights

DIMENSIONS = ("input_dim", "hidden_dim", "output_dim")
"""Entries of a checkpoint that are also the arguments of the network's class."""

KEYS = ("model_state_dict", *DIMENSIONS, "version")


def convert(
    checkpoint: Path,
    *,
    pipeline: Pipeline,
    sample: pa.Table,
    classes: list[str],
    folder: Path,
    training: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    expected: pa.Table | None = None,
) -> str:
    """Write the bundle of a plain checkpoint.

    Args:
        checkpoint: the file that `torch.save` wrote.
        pipeline: gives the network's class and the features in their order; all of them numeric.
        sample: rows of the training window with the key, `dt` (date) and the features, at least 64 rows; the
            first 64 become the golden rows, all of them the reference.
        classes: meaning of each class, in the order of the logits.
        folder: the new bundle's folder.
        training: window, rows and validation, for people; the sample's days if None.
        metrics: measured figures, by name.
        expected: what the training code itself computes for some rows of the sample, as `write_bundle` takes it.

    Returns:
        The bundle's sha256.

    Raises:
        CheckpointError: the checkpoint would run code, is damaged or incomplete, or does not fit the pipeline's
            network class; or the sample does not fit the pipeline's features.
    """
    spec = pipeline.spec
    if spec.features.categorical:
        raise CheckpointError(
            f"{checkpoint}: {pipeline.name} has categorical features ({', '.join(spec.features.categorical)}) "
            "and a plain checkpoint holds no vocabularies; write its bundle with bundle.write_bundle"
        )
    if len(set(classes)) < len(classes):
        raise CheckpointError(f"{checkpoint}: classes {', '.join(classes)}; expected distinct names")
    numeric = list(spec.features.numeric)
    content = _read(checkpoint)
    arguments = {name: content[name] for name in DIMENSIONS}
    if (inputs := arguments["input_dim"]) != len(numeric):
        raise CheckpointError(
            f"features.numeric of {pipeline.name} names {_count(len(numeric), 'feature')} ({', '.join(numeric)}), but "
            f"{checkpoint} has {_count(inputs, 'input')} (input_dim): name {inputs}, in the order of the inputs"
        )
    if (outputs := arguments["output_dim"]) != len(classes):
        raise CheckpointError(
            f"--classes names {_count(len(classes), 'class')} ({', '.join(classes)}), but {checkpoint} has "
            f"{_count(outputs, 'output')} (output_dim): name {outputs}, in the order of the outputs"
        )
    reference = _reference(sample, spec.input.key, numeric)
    days = pc.min_max(reference["dt"]).as_py()
    try:
        network = weights.build(
            pipeline.load(spec.model.network), arguments, content["model_state_dict"], "model_state_dict"
        )
        return write_bundle(
            folder,
            network=network,
            arguments=arguments,
            name=pipeline.name,
            version=content["version"],
            task="classification",
            numeric=numeric,
            categorical={},
            classes=classes,
            training=training or {"from": str(days["min"]), "to": str(days["max"])},
            metrics=metrics or {},
            golden=reference.slice(0, GOLDEN_ROWS).drop_columns("dt"),
            reference=reference,
            expected=expected,
        )
    except UnsoundError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error
    except BundleError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error


def _read(checkpoint: Path) -> dict[str, Any]:
    """Read the checkpoint's entries and check their types; no code in the file is run."""
    import torch

    try:
        file = checkpoint.open("rb")
    except OSError as error:
        raise CheckpointError(f"{checkpoint} cannot be read: {error.strerror}") from error
    try:
        with file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old formats and TorchScript are handled below
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its parsers meet, also OSError, EOFError and KeyError
        raise CheckpointError(f"{checkpoint} {_refusal(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{checkpoint} holds a {type(content).__name__}; expected a dict with {', '.join(KEYS)}")
    if missing := [key for key in KEYS if key not in content]:
        found = ", ".join(map(str, content)) or "nothing"
        raise CheckpointError(f"{checkpoint} has no {', '.join(missing)}; it has {found}: {_advice(content)}")
    for name in DIMENSIONS:
        if type(content[name]) is not int or content[name] < 1:
            raise CheckpointError(f"{checkpoint}: {name} is {content[name]!r}; expected a whole number from 1")
    if not isinstance(content["version"], str) or not content["version"]:
        raise CheckpointError(f"{checkpoint}: version is {content['version']!r}; expected a name such as 'v1'")
    found = content["model_state_dict"]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise CheckpointError(f"{checkpoint}: model_state_dict is not a state dict; expected tensors by name")
    return content


def _advice(content: dict[Any, Any]) -> str:
    """How the training script writes the entries that are missing."""
    import torch

    if content and all(isinstance(value, torch.Tensor) for value in content.values()):
        entries = ", ".join(f'"{name}": …' for name in (*DIMENSIONS, "version"))
        return (
            f'this is a bare state dict; save torch.save({{"model_state_dict": network.state_dict(), {entries}}}, file)'
        )
    return "add it to the dict that torch.save writes"


def _count(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"


def _reference(sample: pa.Table, key: str, numeric: list[str]) -> pa.Table:
    wanted = [key, "dt", *numeric]
    if missing := [name for name in wanted if name not in sample.column_names]:
        raise CheckpointError(f"the sample has no column {', '.join(missing)}; it has {', '.join(sample.column_names)}")
    if not pa.types.is_date(sample.schema.field("dt").type):
        raise CheckpointError(f"the sample's dt is {sample.schema.field('dt').type}; expected a date")
    for name in numeric:
        kind = sample.schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise CheckpointError(f"the sample's {name} is {kind}; expected a number")
    if sample.num_rows < GOLDEN_ROWS:
        raise CheckpointError(f"the sample has {sample.num_rows} rows; expected at least {GOLDEN_ROWS}")
    return sample.select(wanted)


def _refusal(error: Exception) -> str:
    """Why torch did not load it, without torch's own advice, which is to disable the protection."""
    text = str(error)
    if named := re.search(r"GLOBAL (\S+)", text):
        return (
            f"wants to import {named[1]}: loading it could run code, so it was not loaded; "
            "expected tensors, numbers and strings only, saved as a state dict and not as a whole module"
        )
    if "TorchScript" in text:
        return "is a TorchScript archive, which holds code; expected a state dict saved by torch.save"
    if "weights_only" in text:
        return "was not saved by torch.save or holds more than tensors, numbers and strings; it was not loaded"
    return f"is damaged or not a checkpoint ({summary(error)}); expected a whole file of torch.save"
