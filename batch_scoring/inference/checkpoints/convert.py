"""Conversion of a file of weights into a bundle.

The weights are read without running anything, found among what else is in the file, checked against the pipeline's own
network class, and the file is never used again: scoring reads bundles. `bundle.py` says what a bundle is.

    batch-scoring checkpoint --pipeline customer_churn --checkpoint churn.pt \
        --sample sample.parquet --classes stays leaves --expected expected.parquet --out data/customer_churn/models/v1
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import BundleError, CheckpointError, UnsoundError
from batch_scoring.inference.bundle import GOLDEN_ROWS, write_bundle
from batch_scoring.inference.checkpoints import arguments as class_arguments
from batch_scoring.inference.checkpoints import entries, halves
from batch_scoring.inference.checkpoints.readers import opened, refusing
from batch_scoring.inference.checkpoints.stored import Content
from batch_scoring.inference.checkpoints.tokenizers import text_of
from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.inputs.fitted import Fitted
from batch_scoring.inference.network import weights
from batch_scoring.inference.network.code import ModelCode
from batch_scoring.runtime.printable import one_line, some

if TYPE_CHECKING:
    import torch


def convert(
    checkpoint: Path,
    *,
    pipeline: Pipeline,
    sample: pa.Table,
    folder: Path,
    classes: Sequence[str] = (),
    task: Head | None = None,
    arguments: dict[str, Any] | None = None,
    version: str | None = None,
    vocabularies: Mapping[str, Sequence[str]] | None = None,
    tokenizer: bytes | None = None,
    text: Mapping[str, Any] | None = None,
    fitted: Fitted | None = None,
    entry: str | None = None,
    prefix: str | None = None,
    training: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    expected: pa.Table | None = None,
    note: Callable[[str], object] = lambda _: None,
) -> str:
    """Write the bundle of a file of weights.

    Args:
        checkpoint: the file: of `torch.save`, safetensors, or of `torch.export.save`.
        pipeline: gives the network's class and the features in their order.
        sample: rows of the training window with the key, `dt` (date) and the features, at least 64 rows; the
            first 64 become the golden rows, all of them the reference.
        folder: the new bundle's folder.
        classes: meaning of each class, in the order of the logits, unless there is a task.
        task: what the outputs are.
        arguments: of the network's class; the file's own entries `input_dim`, `hidden_dim` and `output_dim` if None.
        version: the version's name, stored in every scored row; the file's own entry if None.
        vocabularies: the words of each categorical feature, in the order of their codes from 1.
        tokenizer: the content of the tokenizer.json of the text features.
        text: fields of `Text` that the tokenizer does not say, such as `longest`.
        fitted: what the transform of the features learned from the training rows.
        entry: the dict in the file that holds the weights, its names joined by dots; found if None.
        prefix: of the weights' names, removed; found if None.
        training: window, rows and validation, for people; the sample's days if None.
        metrics: measured figures, by name.
        expected: what the training code itself computes for some rows of the sample, as `write_bundle` takes it.
        note: receives what was found and what was left out, in one line each.

    Returns:
        The bundle's sha256.

    Raises:
        CheckpointError: the file would run code, is damaged or incomplete, or does not fit the pipeline's network
            class; or the sample does not fit the pipeline's features.
    """
    spec = pipeline.spec
    if len(set(classes)) < len(classes):
        raise CheckpointError(f"{checkpoint}: classes {', '.join(classes)}; expected distinct names")
    words = _vocabularies(pipeline, vocabularies)
    code = ModelCode.of(pipeline)
    with opened(checkpoint) as content, refusing(checkpoint):
        entries.state_dicts(content)  # before all else: without one, nothing else about the file matters
        given = class_arguments.find(content.value, code.network, arguments)
        if arguments is None:
            _check_dimensions(checkpoint, given, pipeline, classes, task)
        name = _version(content, version)
        network, stored = _network(content, code.network, given, entry, prefix, note)
    with refusing(checkpoint):
        texts = text_of(spec.features.text, tokenizer, text or {})
    reference = _reference(sample, pipeline)
    days = pc.min_max(reference["dt"]).as_py()
    try:
        return write_bundle(
            folder,
            network=network,
            arguments=given,
            name=pipeline.name,
            version=name,
            task=task or "classification",
            numeric=list(spec.features.numeric),
            categorical=words,
            classes=classes,
            training=(training or {"from": str(days["min"]), "to": str(days["max"])}) | stored,
            metrics=metrics or {},
            golden=reference.slice(0, GOLDEN_ROWS).drop_columns("dt"),
            reference=reference,
            expected=expected,
            text=texts,
            tokenizer=tokenizer,
            vectors=_lengths(reference, spec.features.vectors),
            code=code,
            fitted=fitted,
        )
    except (BundleError, UnsoundError) as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error


def _network(
    content: Content,
    network_class: Callable[..., "torch.nn.Module"],
    arguments: dict[str, Any],
    entry: str | None,
    prefix: str | None,
    note: Callable[[str], object],
) -> tuple["torch.nn.Module", dict[str, str]]:
    """The network with the file's weights, and what `training` says about these."""
    outline = weights.outline(network_class, arguments)
    choice = entries.choose(content, outline, entry, prefix)
    found, stored = halves.widened(choice.read(), outline.state_dict())
    network = weights.build(network_class, arguments, found, choice.entry or "the state dict")
    if described := choice.describe():
        note(one_line(f"weights: {described}"))
    if content.foreign:
        note(one_line(f"not loaded, and not needed: {some(content.foreign)}"))
    if stored:
        note(f"stored in {stored}, widened to float32")
    return network, {"stored": stored} if stored else {}


def _version(content: Content, given: str | None) -> str:
    found = content.value.get("version") if given is None and isinstance(content.value, dict) else given
    if found is None:
        raise UnsoundError("has no version; add it to the dict that torch.save writes, or name it with --version")
    if not isinstance(found, str) or not found:
        raise UnsoundError(f"version is {class_arguments.shown(found)}; expected a name such as 'v1'")
    return found


def _check_dimensions(
    checkpoint: Path, arguments: dict[str, Any], pipeline: Pipeline, classes: Sequence[str], task: Head | None
) -> None:
    """Check what the file says of itself against the spec and the command."""
    numeric = pipeline.spec.features.numeric
    if (inputs := arguments.get("input_dim", len(numeric))) != len(numeric):
        raise CheckpointError(
            f"features.numeric of {pipeline.name} names {_count(len(numeric), 'feature')} ({', '.join(numeric)}), but "
            f"{checkpoint} has {_count(inputs, 'input')} (input_dim): name {inputs}, in the order of the inputs"
        )
    width, classes = (task.width, task.class_names) if task else (len(classes), classes)
    if (outputs := arguments.get("output_dim", width)) != width:
        named = f"--classes names {_count(width, 'class')} ({', '.join(classes)})"
        has = named if width == len(classes) else f"the task has {_count(width, 'output')}"
        raise CheckpointError(
            f"{has}, but {checkpoint} has "
            f"{_count(outputs, 'output')} (output_dim): name {outputs}, in the order of the outputs"
        )


def _count(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"


def _vocabularies(pipeline: Pipeline, given: Mapping[str, Sequence[str]] | None) -> dict[str, list[str]]:
    """The words of each categorical feature, in the order of the spec."""
    columns, given = pipeline.spec.features.categorical, given or {}
    if missing := [name for name in columns if name not in given]:
        example = ", ".join(f'"{name}": ["…", …]' for name in missing)
        raise CheckpointError(
            f"{pipeline.name} has categorical features ({', '.join(columns)}) and a checkpoint holds no vocabularies: "
            f"--vocabulary FILE.json with {{{example}}}, the words in the order of their codes from 1"
        )
    if extra := [name for name in given if name not in columns]:
        raise CheckpointError(
            f"the vocabulary has {', '.join(extra)}, which features.categorical of {pipeline.name} does not name "
            f"({', '.join(columns) or 'it names none'})"
        )
    return {name: list(given[name]) for name in columns}


def _reference(sample: pa.Table, pipeline: Pipeline) -> pa.Table:
    """The sample's columns that the model needs; with a function of the user's, which may read any, all of them."""
    features, key = pipeline.spec.features, pipeline.spec.input.key
    reads_any = features.transform or features.encode
    wanted = [key, "dt", *(() if reads_any else features.inputs)]
    if missing := [name for name in wanted if name not in sample.column_names]:
        raise CheckpointError(f"the sample has no column {', '.join(missing)}; it has {', '.join(sample.column_names)}")
    if not pa.types.is_date(sample.schema.field("dt").type):
        raise CheckpointError(f"the sample's dt is {sample.schema.field('dt').type}; expected a date")
    for name in filter(sample.column_names.__contains__, features.numeric):
        kind = sample.schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise CheckpointError(f"the sample's {name} is {kind}; expected a number")
    if sample.num_rows < GOLDEN_ROWS:
        raise CheckpointError(f"the sample has {sample.num_rows} rows; expected at least {GOLDEN_ROWS}")
    return sample if reads_any else sample.select(wanted)


def _lengths(sample: pa.Table, columns: Sequence[str]) -> dict[str, int]:
    """The length of the lists in each column of vectors, by the first of them."""
    return {name: _length(name, sample[name] if name in sample.column_names else None) for name in columns}


def _length(name: str, column: pa.ChunkedArray | None) -> int:
    kind = None if column is None else column.type
    if column is None or not (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)) or not column.drop_null():
        raise CheckpointError(f"the sample's {name} is {kind or 'missing'}; expected lists of numbers")
    return len(column.drop_null()[0])
