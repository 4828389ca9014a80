"""The model bundle: a folder of data files that together form one version of a model.

    bundle.json         the manifest: version, network arguments, features, classes, metrics, sha256 of the other files
    model.safetensors   the weights and buffers
    tokenizer.json      of a model of texts, in the format of the package tokenizers
    golden.parquet      64 rows with the outputs that they must give
    reference.parquet   a sample of the training window: features and predictions
    profile.json        the reference profile: ordinary days of the reference (written by `batch-scoring calibrate`)
    fitted.*            what the transform has learned, if there is one (`inputs/fitted.py`)

A bundle is verified before anything is scored with it, and it is data only: loading one never unpickles and never
runs code from outside the pipeline's own package. `registry.py` knows which version is active.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from batch_scoring.errors import BundleError, EntryError, UnsoundError, is_out_of_memory
from batch_scoring.inference.acceptance import agreement, reference, row_independence, vocabularies
from batch_scoring.inference.acceptance.agreement import Deviation
from batch_scoring.inference.acceptance.functions import own_encoders, transforms
from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.heads.task import TaskName, from_name
from batch_scoring.inference.heads.tolerance import ROUNDING, Tolerance
from batch_scoring.inference.inputs import fitted as fitted_state
from batch_scoring.inference.inputs import own_encoder
from batch_scoring.inference.inputs.descriptors import Descriptors
from batch_scoring.inference.inputs.own_encoder import OwnEncoder
from batch_scoring.inference.inputs.texts import Texts
from batch_scoring.inference.inputs.transform import Function, Rules, Transform
from batch_scoring.inference.inputs.vectors import Vectors
from batch_scoring.inference.manifest import FORMATS, LoadedModel, Manifest, Text
from batch_scoring.inference.network import weights
from batch_scoring.inference.network.code import ModelCode, NetworkClass
from batch_scoring.inference.reference_profile import ReferenceProfile
from batch_scoring.inference.scorer import Scorer
from batch_scoring.storage import parquet
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.folders.folder import Folder

if TYPE_CHECKING:
    import torch

MANIFEST = "bundle.json"
WEIGHTS, GOLDEN, REFERENCE = "model.safetensors", "golden.parquet", "reference.parquet"
FILES = (WEIGHTS, GOLDEN, REFERENCE)
PROFILE, TOKENIZER = "profile.json", "tokenizer.json"

GOLDEN_ROWS = 64

LARGEST_TOKENIZER = 64 * 2**20
"""Bytes; that of the largest published vocabulary has 17 MB. A larger file is not read into memory."""

_UNDO = "undo the change, or write a new bundle"
OTHER_OUTPUTS = (
    f"the network's code has changed since the bundle was written ({_UNDO}), or this is another build of torch or "
    "another machine"
)
"""Why intact weights may give other outputs, and what to do."""


@dataclass(frozen=True)
class Bundle:
    """The bytes of a bundle, read once and verified against their sha256."""

    manifest: Manifest
    sha256: str
    """Sha256 of `bundle.json`, which holds that of every other file: the identity of the model."""
    content: Mapping[str, bytes]
    uri: str

    @property
    def golden(self) -> pa.Table:
        """64 input rows with the outputs expected for them (`output_0` …)."""
        return _table(self, GOLDEN)

    @property
    def reference(self) -> pa.Table:
        """A sample of the training window: key, dt (as dates, however it was delivered), features, predictions.

        Raises:
            BundleError: it is not a Parquet file, or `dt` is not a day in every row.
        """
        return _dated(_table(self, REFERENCE), f"{self.uri}/{REFERENCE}")

    @property
    def profile(self) -> ReferenceProfile | None:
        """The reference profile; None before calibration.

        Raises:
            BundleError: `profile.json` is malformed.
        """
        try:
            return ReferenceProfile.model_validate_json(self.content[PROFILE]) if PROFILE in self.content else None
        except ValidationError as error:
            raise BundleError(
                f"{self.uri}/{PROFILE} is not a reference profile: {_errors(error)}; calibrate the bundle again"
            ) from error

    def with_profile(self, profile: ReferenceProfile, version: str) -> "Bundle":
        """The bundle with a reference profile, under a version's name; nothing is written yet."""
        content = {name: data for name, data in self.content.items() if name != MANIFEST}
        content[PROFILE] = (profile.model_dump_json(indent=1) + "\n").encode()
        return _sealed(self.manifest.model_copy(update={"version": version}), content, self.uri)

    def write(self, folder: Folder) -> None:
        """Write the bundle's files into a folder, the manifest last: it vouches for the others."""
        for name in sorted(self.content, key=lambda name: name == MANIFEST):
            folder.put(name, self.content[name])


def read_manifest(folder: Folder) -> tuple[bytes, Manifest]:
    """Read a bundle's manifest, as bytes and parsed; the files that it names are not read.

    Raises:
        BundleError: it is missing or malformed.
    """
    try:
        raw = _read(folder, MANIFEST)
        return raw, Manifest.model_validate_json(raw)
    except FileNotFoundError as error:
        raise BundleError(f"{folder.uri}: there is no {MANIFEST}; expected a bundle folder") from error
    except ValidationError as error:
        raise BundleError(f"{folder.uri}/{MANIFEST} is not a manifest: {_errors(error)}") from error


def read_version(folder: Folder) -> str | None:
    """Read the version of a manifest, even one that is no longer valid: its name is in scored rows."""
    with contextlib.suppress(FileNotFoundError, ValueError, AttributeError):
        version: str | None = json.loads(folder.read(MANIFEST)).get("version")
        return version
    return None


def read_sha256(folder: Folder) -> str:
    """Read the sha256 that identifies a bundle: that of its manifest, which vouches for the other files.

    Raises:
        BundleError: the manifest is missing or malformed.
    """
    raw, _ = read_manifest(folder)
    return hashlib.sha256(raw).hexdigest()


def read_description(folder: Folder) -> tuple[Manifest, ReferenceProfile | None]:
    """Read a bundle's manifest and reference profile, without weights and samples.

    Raises:
        BundleError: the manifest or the profile is missing or malformed.
    """
    raw, manifest = read_manifest(folder)
    try:
        content = {PROFILE: _read(folder, PROFILE)} if PROFILE in manifest.files else {}
    except FileNotFoundError as error:
        raise BundleError(
            f"{folder.uri}: {PROFILE} is missing; {MANIFEST} says that it belongs to the bundle"
        ) from error
    return manifest, Bundle(manifest, hashlib.sha256(raw).hexdigest(), content, folder.uri).profile


def read_bundle(folder: Folder) -> Bundle:
    """Read a whole bundle and verify every sha256; later changes of the folder have no effect.

    Raises:
        BundleError: a file is missing or malformed, or its bytes are not those that the manifest names.
    """
    raw, manifest = read_manifest(folder)
    wanted = (*FILES, TOKENIZER) if manifest.text else FILES
    if missing := [name for name in wanted if name not in manifest.files]:
        raise BundleError(
            f"{folder.uri}/{MANIFEST}: files names no {', '.join(missing)}; a bundle has {', '.join(wanted)}"
        )
    content = {MANIFEST: raw}
    for name, expected in manifest.files.items():
        if "/" in name or name.startswith("."):
            raise BundleError(
                f"{folder.uri}/{MANIFEST}: files names {name!r}; expected files of the bundle's own folder"
            )
        try:
            if name == TOKENIZER:
                _check_size(folder)
            content[name] = _read(folder, name)
        except FileNotFoundError as error:
            raise BundleError(
                f"{folder.uri}: {name} is missing; {MANIFEST} says that it belongs to the bundle"
            ) from error
        found = hashlib.sha256(content[name]).hexdigest()
        if found != expected:
            raise BundleError(
                f"{folder.uri}/{name} has sha256 {found} ({len(content[name])} bytes), {MANIFEST} says {expected}: "
                "it is truncated, overwritten or of another version; deliver the bundle again"
            )
    return Bundle(manifest, hashlib.sha256(raw).hexdigest(), content, folder.uri)


def _check_size(folder: Folder) -> None:
    """Check the size of the tokenizer before it is read."""
    file = folder.version(TOKENIZER)
    if file and file.size > LARGEST_TOKENIZER:
        raise BundleError(
            f"{folder.uri}/{TOKENIZER} has {file.size:,} bytes; expected at most {LARGEST_TOKENIZER:,}: it is no "
            "tokenizer"
        )


def build_network(bundle: Bundle, code: ModelCode | NetworkClass) -> LoadedModel:
    """Build the network from the pipeline's own class and the bundle's weights.

    Raises:
        BundleError: the class rejects the arguments, or a weight is missing, surplus, of another shape or type, NaN or
            infinite.
    """
    code = ModelCode.given(code)
    network_class = code.network
    try:
        found = weights.read(bundle.content[WEIGHTS], WEIGHTS)
        network = weights.build(network_class, bundle.manifest.arguments, found, WEIGHTS)
    except UnsoundError as error:
        name = getattr(network_class, "__name__", "the network")
        raise BundleError(
            f"{bundle.uri}: {error}; if {name} has changed since the bundle was written: {_UNDO}"
        ) from error
    return LoadedModel(
        bundle.manifest,
        bundle.sha256,
        network,
        tokenizer=bundle.content.get(TOKENIZER),
        transform=build_transform(bundle, code.transform, code.rules),
        encode=_build_own_encoder(bundle, code.encode),
    )


def _build_own_encoder(bundle: Bundle, function: own_encoder.Function | None) -> OwnEncoder | None:
    """What makes the inputs that the pipeline's own function gives; None if the model has none.

    Raises:
        BundleError: there is no function, or the fitted state is damaged.
    """
    arrays = bundle.manifest.arrays
    if not arrays:
        return None
    if function is None:
        raise BundleError(
            f"{bundle.uri} needs the inputs {', '.join(arrays)}, and has no function that makes them: name it in "
            "features.encode of the spec, or load the bundle with ModelCode(network, encode=encode)"
        )
    with _located(bundle.uri):
        state = fitted_state.load(bundle.content)
        reads, _ = transforms.columns_of(bundle.manifest, bundle.golden.schema)
    return OwnEncoder(function, state, reads, arrays)


def build_transform(bundle: Bundle, function: Function | None, rules: Rules | None = None) -> Transform | None:
    """What makes the bundle's engineered features: the pipeline's own function and the bundle's fitted state.

    Returns:
        None if the model has no engineered features; a function is of no use to it then.

    Raises:
        BundleError: there is no function, or the fitted state or the columns in the golden rows are damaged.
    """
    engineered = bundle.manifest.engineered
    if not engineered:
        return None
    if function is None:
        raise BundleError(
            f"{bundle.uri} needs the engineered features {', '.join(engineered)}, and has no function that makes them: "
            "name it in features.transform of the spec, or load the bundle with ModelCode(network, transform)"
        )
    with _located(bundle.uri):
        state = fitted_state.load(bundle.content)
    with _located(f"{bundle.uri}/{GOLDEN}"):
        reads, gives = transforms.columns_of(bundle.manifest, bundle.golden.schema)
    return Transform(function, state, reads, gives, rules)


def build_descriptors(bundle: Bundle) -> Descriptors:
    """What describes the texts and vectors of the bundle's model.

    Raises:
        BundleError: the tokenizer is none.
    """
    with _located(bundle.uri):
        text, vectors = bundle.manifest.text, bundle.manifest.vectors
        texts = Texts(text, bundle.content[TOKENIZER]) if text else None
        return Descriptors(texts, Vectors(vectors) if vectors else None)


def check_contents(bundle: Bundle, model: LoadedModel) -> None:
    """Check, on delivery, everything that a day needs besides the weights: vocabularies, reference, reference profile.

    Raises:
        BundleError: the reference has no rows, lacks a column or has words that the vocabularies do not, the network
            does not accept all of their codes, or the profile is malformed or of other features.
    """
    rows, profile = bundle.reference, bundle.profile
    with _located(f"{bundle.uri}/{REFERENCE}"):
        reference.check_reference(bundle.manifest, rows)
    with _located(bundle.uri):
        if not bundle.manifest.described and not bundle.manifest.arrays:
            vocabularies.check_codes(model, rows)
        if model.transform:
            transforms.check_rows_are_independent(model.transform, bundle.golden, rows)
    if profile is not None:
        with _located(f"{bundle.uri}/{PROFILE}"):
            reference.check_profile(bundle.manifest, profile)


def golden_deviation(bundle: Bundle, model: LoadedModel, device: str = "cpu") -> Deviation:
    """The largest deviation of the golden rows' outputs from those recorded when the bundle was written.

    Raises:
        ScoringError: the device is missing.
        BundleError: the golden rows cannot be scored, their outputs have another shape or are not finite, or any
            outputs would be accepted.
    """
    expected = _golden_outputs(bundle)
    with _located(bundle.uri):
        if model.transform:
            transforms.check_values(model.transform, bundle.golden)
        scorer = Scorer(replace(model, golden=bundle.golden), device=device)
    try:
        outputs = scorer.outputs(bundle.golden)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise BundleError(f"{bundle.uri}/{GOLDEN}: the network cannot score the golden rows: {error}") from error
    if outputs.shape != expected.shape or not np.isfinite(outputs).all():
        raise BundleError(
            f"{bundle.uri}/{GOLDEN}: the network gives {int(np.isfinite(outputs).sum())} finite outputs of shape "
            f"{outputs.shape}; expected {expected.shape}, all finite"
        )
    return agreement.worst(outputs, expected, bundle.manifest.tolerance)


def _golden_outputs(bundle: Bundle) -> np.ndarray:
    """The recorded outputs, float32[rows, outputs]."""
    golden, manifest = bundle.golden, bundle.manifest
    where = f"{bundle.uri}/{GOLDEN}"
    if golden.num_rows != GOLDEN_ROWS:
        raise BundleError(f"{where} has {golden.num_rows} rows; expected {GOLDEN_ROWS}")
    names = manifest.output_columns
    if absent := [name for name in names if name not in golden.column_names]:
        raise BundleError(f"{where} has no column {', '.join(absent)}; expected {', '.join(names)}")
    with _located(where):
        reference.check_names(golden)
        for name in names:
            reference.check_numbers(name, golden.schema.field(name).type)
    expected = np.column_stack([golden[name].to_numpy() for name in names])
    if not np.isfinite(expected).all():
        count = int((~np.isfinite(expected)).sum())
        raise BundleError(f"{where}: {count} of the outputs to compare with are not finite numbers")
    if manifest.tolerance.is_wide and agreement.is_no_check(expected, manifest.tolerance):
        raise BundleError(
            f"{bundle.uri}/{MANIFEST}: golden_tolerance ({manifest.tolerance}) does not check golden outputs from "
            f"{expected.min():.6g} to {expected.max():.6g}: expected less than {agreement.WIDEST:.0%} of their range"
        )
    return expected


def load_bundle(folder: Folder, code: ModelCode | NetworkClass, device: str = "cpu") -> LoadedModel:
    """Read and build a bundle, and verify it with its golden rows on the device.

    Args:
        folder: of the bundle.
        code: the pipeline's, `ModelCode.of(pipeline)`; the network's class alone where the model needs no more.
        device: cpu, cuda, or auto for a GPU where there is one.

    Raises:
        BundleError: its weights or golden rows are not as its manifest says.
        ScoringError: the device is missing.
    """
    bundle = read_bundle(folder)
    model = build_network(bundle, code)
    _check_golden(bundle, model, device)
    return replace(model, golden=bundle.golden)


def prove(bundle: Bundle, code: ModelCode | NetworkClass, device: str = "cpu") -> LoadedModel:
    """Verify a bundle as `load_bundle` does, and check everything else in it.

    Raises:
        BundleError: it is not as its manifest says, or a row's outputs depend on other rows.
        ScoringError: the device is missing.
    """
    model = build_network(bundle, code)
    check_contents(bundle, model)
    _check_golden(bundle, model, device)
    return replace(model, golden=bundle.golden)


def _check_golden(bundle: Bundle, model: LoadedModel, device: str) -> None:
    deviation = golden_deviation(bundle, model, device)
    check_rows(bundle, model)  # checked first: rows that depend on each other would look like other weights
    if not deviation.is_accepted:
        raise BundleError(
            f"{bundle.uri}: the golden rows differ by {deviation.size:.2g}, expected at most {deviation.bound:.2g}: "
            f"{OTHER_OUTPUTS}"
        )


def check_rows(bundle: Bundle, model: LoadedModel) -> None:
    """Check that the network gives its golden rows the same outputs in other batches.

    Raises:
        BundleError: a row's outputs depend on other rows.
    """
    with _located(bundle.uri):
        golden = transforms.with_engineered(model, bundle.golden)
        row_independence.check_rows_are_independent(model, golden)
        if bundle.manifest.described or bundle.manifest.arrays:  # the reference has not what they need
            vocabularies.check_codes(model, golden)
            vocabularies.check_tokens(model, golden)
        own_encoders.check_rows_are_independent(model, golden)


def write_bundle(
    folder: Path,
    *,
    network: "torch.nn.Module",
    arguments: dict[str, Any],
    name: str,
    version: str,
    task: Head | TaskName,
    numeric: list[str],
    categorical: dict[str, list[str]],
    classes: Sequence[str] = (),
    training: dict[str, Any],
    metrics: dict[str, float],
    golden: pa.Table,
    reference: pa.Table,
    expected: pa.Table | None = None,
    golden_tolerance: Tolerance | float | None = None,
    text: Text | None = None,
    tokenizer: bytes | None = None,
    vectors: Mapping[str, int] | None = None,
    code: ModelCode | None = None,
    fitted: fitted_state.Fitted | None = None,
) -> str:
    """Write a trained network as a bundle.

    Outputs and scores in it are the network's own, in eager torch. Then the network is built again from the bundle, and
    the scorer has to give the same.

    Args:
        folder: the new bundle's folder; files of the same names are replaced.
        network: trained, on the CPU, with its normalisation in buffers.
        arguments: keyword arguments that build the same class again; plain JSON.
        name: the pipeline's name.
        version: the version's name, which is stored in every scored row.
        task: what the outputs are, a head of `inference/heads/`; or a name: classification for logits of `classes`,
            regression for one value.
        numeric: feature columns in the order of the numeric matrix.
        categorical: vocabulary of each categorical column, in the order of the categorical matrix.
        classes: meaning of each class in the order of the logits, if `task` is a name.
        training: window, rows and validation, for people.
        metrics: measured figures, by name.
        golden: 64 rows with the key and the feature columns; if there is a transform, with all columns that it reads,
            and without those that it makes.
        reference: a sample of the training window with the key, `dt` (date) and the same columns.
        expected: what the training code itself computes for some of these rows, in any order: the key (and `dt`, if a
            key occurs on several days) and either the network's outputs (`output_0` …) or the scores as predictions
            have them (`prob_class_0` …, of two classes one is enough; a regression: `prediction`).
        golden_tolerance: by how much outputs may differ on another machine, a number if absolute; `agreement.usual` if
            None.
        text: the text columns of a model of texts, and how their tokens are cut and padded.
        tokenizer: the content of its tokenizer.json.
        vectors: list columns in the order of the matrix of vectors, with the length of their lists.
        code: `ModelCode.of(pipeline)`, for a model with a transform; its network's class is that of `network`.
        fitted: what `fit` has returned for the training rows.

    Returns:
        The bundle's sha256.

    Raises:
        BundleError: the network cannot be scored with, or gives other outputs than expected, or the bundle would not
            load again; nothing is written then.
    """
    from batch_scoring.inference.acceptance import golden_rows  # late: only training and conversion need it

    place, code = open_folder(str(folder)), replace(code or ModelCode(type(network)), network=type(network))
    if golden.num_rows != GOLDEN_ROWS:
        raise BundleError(f"{place.uri}: {golden.num_rows} golden rows; expected {GOLDEN_ROWS}")
    if (text is None) != (tokenizer is None):
        raise BundleError(f"{place.uri}: expected both text and tokenizer, or none of them")
    draft = _draft(
        place,
        name=name,
        version=version,
        task=from_name(task, classes) if isinstance(task, str) else task,
        arguments=arguments,
        numeric=tuple(numeric),
        categorical={column: tuple(words) for column, words in categorical.items()},
        text=text,
        vectors=dict(vectors or {}),
        training=training,
        metrics=metrics,
        golden_tolerance=ROUNDING if golden_tolerance is None else golden_tolerance,
    )
    with _located(place.uri):
        content = {WEIGHTS: weights.saved(network)}
        # before all else: types that differ from the class's would raise in forward, with a worse message
        weights.build(type(network), arguments, weights.read(content[WEIGHTS], WEIGHTS), WEIGHTS)
        content |= _fitted_files(code, fitted)
        rows = transforms.engineer(code, fitted_state.load(content), golden, reference)
        draft = draft.model_copy(update={"engineered": rows.types})
        encode = own_encoders.learn(code.encode, fitted_state.load(content), golden) if code.encode else None
        draft = draft.model_copy(update={"arrays": dict(encode.gives)} if encode else {})
        trained = LoadedModel(draft, "", network.eval(), tokenizer=tokenizer, encode=encode)
        owned = golden_rows.compute(trained, rows.golden, rows.reference)
    content[GOLDEN] = _parquet(transforms.with_values(owned.golden, rows.features))
    content[REFERENCE] = _parquet(owned.kept_reference)
    content |= {TOKENIZER: tokenizer} if text and tokenizer else {}
    tolerance: Tolerance | float | None = golden_tolerance
    if tolerance is None:
        tolerance = agreement.usual(draft.task.tolerance, owned.golden_outputs)
    written = _sealed(owned.manifest.model_copy(update={"golden_tolerance": tolerance}), content, place.uri)
    model = prove(written, code)
    with _located(place.uri):
        owned.check_scorer(model, expected)
    written.write(place)
    return written.sha256


def _fitted_files(code: ModelCode, fitted: fitted_state.Fitted | None) -> dict[str, bytes]:
    """The files of the fitted state, which only a model with a transform or an encoder of its own has."""
    if code.transform or code.encode:
        return fitted_state.dump({} if fitted is None else fitted)
    if fitted is not None:
        raise UnsoundError("a fitted state is given, and code has neither transform nor encode that would get it")
    return {}


def _draft(place: Folder, **fields: Any) -> Manifest:  # noqa: ANN401  (the manifest's fields)
    """A manifest without the sha256 of its files, which can be written as JSON."""
    try:
        draft = Manifest(files={}, **fields)
        _dump(draft)
    except PydanticSerializationError as error:
        raise BundleError(
            f"{place.uri}/{MANIFEST} would not be JSON: {error}; expected plain numbers, texts, lists"
        ) from error
    except ValidationError as error:
        raise BundleError(f"{place.uri}/{MANIFEST} would not be a manifest: {_errors(error)}") from error
    return draft


def _sealed(draft: Manifest, content: Mapping[str, bytes], uri: str) -> Bundle:
    """The bundle of some files, with their sha256 in its manifest."""
    digests = {file: hashlib.sha256(data).hexdigest() for file, data in content.items()}
    raw = _dump(draft.model_copy(update={"files": digests, "format": FORMATS[-1]}))
    manifest = Manifest.model_validate_json(raw)  # as it will be read: a tuple has become a list
    return Bundle(manifest, hashlib.sha256(raw).hexdigest(), {**content, MANIFEST: raw}, uri)


@contextlib.contextmanager
def _located(where: str) -> Iterator[None]:
    """Turn an UnsoundError into a BundleError that says where."""
    try:
        yield
    except UnsoundError as error:
        raise BundleError(f"{where}: {error}") from error


def _read(folder: Folder, name: str) -> bytes:
    try:
        return folder.read(name)
    except EntryError as error:
        raise BundleError(f"{error}; a bundle has files of its own folder: deliver it again") from error


def _dump(manifest: Manifest) -> bytes:
    return (json.dumps(manifest.model_dump(mode="json"), indent=2, allow_nan=False) + "\n").encode()


def _errors(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, e['loc'])) or 'content'}: {e['msg'].removeprefix('Value error, ')}"
        + (f", found {e['input']}" if e["type"] == "finite_number" else "")
        for e in error.errors()
    )


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def _table(bundle: Bundle, name: str) -> pa.Table:
    try:
        # read_table would import pandas
        return parquet.open_file(pa.BufferReader(bundle.content[name])).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:  # a damaged footer is an OSError
        raise BundleError(f"{bundle.uri}/{name} is not a Parquet file: {error}") from error


def _dated(rows: pa.Table, where: str) -> pa.Table:
    """The rows with `dt`, if they have it, as dates: pandas writes timestamps, others text."""
    if "dt" not in rows.column_names:
        return rows
    try:
        days = rows["dt"].cast(pa.date32())
    except pa.ArrowException as error:
        raise BundleError(f"{where}: dt is {rows['dt'].type}, not the day of each row: {error}") from error
    if days.null_count:
        raise BundleError(f"{where}: {days.null_count} of {len(days)} rows have no day in dt")
    return rows.set_column(rows.column_names.index("dt"), "dt", days)
