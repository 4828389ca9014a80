"""The model bundle: a folder of data files that together are one version of a model.

    bundle.json         what it is: version, network arguments, features, classes, metrics, sha256 of the other files
    model.safetensors   the weights and buffers
    golden.parquet      64 rows and the outputs that they must give
    reference.parquet   a sample of the training window: features and predictions
    profile.json        what ordinary days of the reference are like (once `drift calibrate` has learned it)

A bundle is verified before anything is scored with it, and it is data only: loading one never unpickles and never
runs code that is not in the pipeline's own package. Which version is in force is `model.py`'s business.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from batch_scoring.manifest import LoadedModel, Manifest
from batch_scoring.profile import Profile
from batch_scoring.storage import EntryError, Folder

if TYPE_CHECKING:
    import torch

MANIFEST = "bundle.json"
WEIGHTS, GOLDEN, REFERENCE = "model.safetensors", "golden.parquet", "reference.parquet"
FILES = (WEIGHTS, GOLDEN, REFERENCE)
PROFILE = "profile.json"

GOLDEN_ROWS = 64


class BundleError(ValueError):
    """A bundle is not what it says it is; the message names the file, what was expected and what was found."""


@dataclass(frozen=True)
class Bundle:
    """The bytes of a bundle, read once and verified against their sha256."""

    manifest: Manifest
    sha256: str
    """Of `bundle.json`, which holds the sha256 of all else: the identity of the model."""
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
            BundleError: it is no Parquet file, or `dt` does not say a day in every row.
        """
        return _dated(_table(self, REFERENCE), f"{self.uri}/{REFERENCE}")

    @property
    def profile(self) -> Profile | None:
        """What ordinary days of the reference are like; None if that has not been learned.

        Raises:
            BundleError: `profile.json` is not in its form.
        """
        try:
            return Profile.model_validate_json(self.content[PROFILE]) if PROFILE in self.content else None
        except ValidationError as error:
            raise BundleError(
                f"{self.uri}/{PROFILE} is no profile: {_faults(error)}; calibrate the bundle anew"
            ) from error

    def with_profile(self, profile: Profile, version: str) -> "Bundle":
        """The bundle with a profile, under a version's name; nothing is written yet."""
        content = dict(self.content) | {PROFILE: (profile.model_dump_json(indent=1) + "\n").encode()}
        files = {name: hashlib.sha256(data).hexdigest() for name, data in content.items() if name != MANIFEST}
        manifest = self.manifest.model_copy(update={"version": version, "files": files})
        content[MANIFEST] = _dump(manifest)
        return Bundle(manifest, hashlib.sha256(content[MANIFEST]).hexdigest(), content, self.uri)

    def write(self, folder: Folder) -> None:
        """Put the bundle's files into a folder, the manifest last: it vouches for the others."""
        for name in sorted(self.content, key=lambda name: name == MANIFEST):
            folder.put(name, self.content[name])


def read_manifest(folder: Folder) -> tuple[bytes, Manifest]:
    """The bytes and the content of a bundle's manifest; the files that it names are not looked at.

    Raises:
        BundleError: it is missing or not in its form.
    """
    try:
        raw = _read(folder, MANIFEST)
        return raw, Manifest.model_validate_json(raw)
    except FileNotFoundError as error:
        raise BundleError(f"{folder.uri}: there is no {MANIFEST}; expected a bundle folder") from error
    except ValidationError as error:
        raise BundleError(f"{folder.uri}/{MANIFEST} is no manifest: {_faults(error)}") from error


def read_sha256(folder: Folder) -> str:
    """The sha256 that names a bundle: its manifest's, which vouches for the other files. These are not read.

    Raises:
        BundleError: the manifest is missing or not in its form.
    """
    raw, _ = read_manifest(folder)
    return hashlib.sha256(raw).hexdigest()


def read_description(folder: Folder) -> tuple[Manifest, Profile | None]:
    """What a bundle says of itself and of its reference; weights and samples are not read.

    Raises:
        BundleError: the manifest or the profile is missing or not in its form.
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
    """Read a bundle whole and verify every sha256, so that what happens to the folder afterwards changes nothing.

    Raises:
        BundleError: a file is missing, is not in the manifest's form, or has other bytes than the manifest says.
    """
    raw, manifest = read_manifest(folder)
    missing = [name for name in FILES if name not in manifest.files]
    if missing:
        raise BundleError(
            f"{folder.uri}/{MANIFEST}: files names no {', '.join(missing)}; a bundle has {', '.join(FILES)}"
        )
    content = {MANIFEST: raw}
    for name, expected in manifest.files.items():
        if "/" in name or name.startswith("."):
            raise BundleError(
                f"{folder.uri}/{MANIFEST}: files names {name!r}; expected files of the bundle's own folder"
            )
        try:
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


def build_network(bundle: Bundle, network_class: Callable[..., "torch.nn.Module"]) -> LoadedModel:
    """Build the network from the pipeline's own class and the bundle's weights.

    Raises:
        BundleError: the class refuses the arguments, a weight is missing, surplus, of another shape, NaN or infinite.
    """
    import safetensors.torch

    from batch_scoring.scoring import is_out_of_memory

    where = f"{bundle.uri}/{WEIGHTS}"
    name = getattr(network_class, "__name__", "the network")
    try:
        network = network_class(**bundle.manifest.arguments)
    except Exception as error:
        if is_out_of_memory(error):
            raise  # the machine's fault, not the bundle's
        raise BundleError(f"{bundle.uri}: {name}(**{bundle.manifest.arguments}) failed: {error!r}") from error
    try:
        weights = safetensors.torch.load(bundle.content[WEIGHTS])
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise BundleError(f"{where} is no safetensors file: {error}") from error
    refuse_unfit(network.state_dict(), weights, where, name)
    network.load_state_dict(weights)
    return LoadedModel(bundle.manifest, bundle.sha256, network.eval().requires_grad_(False))


def refuse_unfit(
    own: "Mapping[str, torch.Tensor]", weights: "Mapping[str, torch.Tensor]", where: str, name: str
) -> None:
    """Refuse weights that are not exactly those of a network.

    Args:
        own: the network's own state dict, on any device.
        weights: those found in the file.
        where: the file, for the message.
        name: the network's class, for the message.

    Raises:
        BundleError: a weight is missing, surplus, of another shape or type, NaN or infinite.
    """
    import torch

    if missing := sorted(own.keys() - weights.keys()):
        raise BundleError(f"{where} lacks {', '.join(missing)}, which {name} needs")
    if extra := sorted(weights.keys() - own.keys()):
        raise BundleError(f"{where} has {', '.join(extra)}, which {name} does not know")
    for weight, values in weights.items():
        expected = own[weight]
        if values.shape != expected.shape:
            raise BundleError(
                f"{where}: {weight} has shape {tuple(values.shape)}; {name} expects {tuple(expected.shape)}"
            )
        if values.dtype != expected.dtype or values.layout != torch.strided:
            raise BundleError(f"{where}: {weight} is {values.dtype} ({values.layout}); {name} expects {expected.dtype}")
        if bad := int((~torch.isfinite(values)).sum()):
            raise BundleError(f"{where}: {weight} has {bad} of {values.numel()} values that are NaN or infinite")


def golden_deviation(bundle: Bundle, model: LoadedModel, device: str = "cpu") -> float:
    """Largest absolute difference between the golden rows' outputs now and as they were when the bundle was written.

    Raises:
        ScoringError: the device is not there.
        BundleError: the golden rows cannot be scored at all, or give outputs of another shape or that are not finite.
    """
    from batch_scoring.scoring import Scorer, is_out_of_memory

    golden = bundle.golden
    if golden.num_rows != GOLDEN_ROWS:
        raise BundleError(f"{bundle.uri}/{GOLDEN} has {golden.num_rows} rows; expected {GOLDEN_ROWS}")
    names = [f"output_{index}" for index in range(bundle.manifest.outputs)]
    if absent := [name for name in names if name not in golden.column_names]:
        raise BundleError(f"{bundle.uri}/{GOLDEN} has no column {', '.join(absent)}; expected {', '.join(names)}")
    scorer = Scorer(model, device=device)
    try:
        outputs = scorer.outputs(golden)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise BundleError(f"{bundle.uri}/{GOLDEN}: the network cannot score the golden rows: {error}") from error
    expected = np.column_stack([golden[name].to_numpy() for name in names])
    if not np.isfinite(expected).all():
        count = int((~np.isfinite(expected)).sum())
        raise BundleError(f"{bundle.uri}/{GOLDEN}: {count} of the outputs to compare with are not finite numbers")
    if outputs.shape != expected.shape or not np.isfinite(outputs).all():
        raise BundleError(
            f"{bundle.uri}/{GOLDEN}: the network gives {int(np.isfinite(outputs).sum())} finite outputs of shape "
            f"{outputs.shape}; expected {expected.shape}, all finite"
        )
    return float(np.abs(outputs - expected).max())


def load_bundle(folder: Folder, network_class: Callable[..., "torch.nn.Module"], device: str = "cpu") -> LoadedModel:
    """Read, build and prove a bundle in one step: what comes back has scored its golden rows on that device.

    Raises:
        BundleError: anything about it is not as its manifest says.
        ScoringError: the device is not there.
    """
    return prove(read_bundle(folder), network_class, device)


def prove(bundle: Bundle, network_class: Callable[..., "torch.nn.Module"], device: str = "cpu") -> LoadedModel:
    """Build a bundle's network and score its golden rows: the model, if they come out as they must.

    Raises:
        BundleError: weights or golden rows are not as the manifest says.
        ScoringError: the device is not there.
    """
    model = build_network(bundle, network_class)
    deviation = golden_deviation(bundle, model, device)
    bound = model.manifest.golden_tolerance
    if deviation > bound:
        raise BundleError(
            f"{bundle.uri}: the golden rows differ by {deviation:.2g}, expected at most {bound:.2g}: other weights, "
            "another network class, another build of torch or another machine than the bundle was written with"
        )
    return model


def write_bundle(
    folder: Path,
    *,
    network: "torch.nn.Module",
    arguments: dict[str, Any],
    name: str,
    version: str,
    task: Literal["classification", "regression"],
    numeric: list[str],
    categorical: dict[str, list[str]],
    classes: list[str],
    training: dict[str, Any],
    metrics: dict[str, float],
    golden: pa.Table,
    reference: pa.Table,
) -> str:
    """Write a trained network as a bundle.

    Args:
        folder: the new bundle's folder; files of the same names are replaced.
        network: trained, with its normalisation in buffers.
        arguments: keyword arguments that build the same class again; plain JSON.
        name: the pipeline's name.
        version: the version's name, which stands in every scored row.
        task: what the outputs are: logits of classes, or one value.
        numeric: feature columns in the order of the numeric matrix.
        categorical: vocabulary of each categorical column, in the order of the categorical matrix.
        classes: meaning of each class in the order of the logits; empty for a regression.
        training: window, rows and validation, for people.
        metrics: honest figures, by name.
        golden: 64 rows with the key and the feature columns.
        reference: a sample of the training window with the key, `dt` (date) and the feature columns.

    Returns:
        The bundle's sha256.

    Raises:
        BundleError: `golden` has another number of rows, the network gives no finite output for a golden or reference
            row, or the bundle would not load again; nothing is written then.
    """
    import safetensors.torch

    from batch_scoring.scoring import Scorer
    from batch_scoring.storage import open_folder

    if golden.num_rows != GOLDEN_ROWS:
        raise BundleError(f"{folder}: {golden.num_rows} golden rows; expected {GOLDEN_ROWS}")
    draft = Manifest(
        name=name, version=version, task=task, arguments=arguments, numeric=tuple(numeric),
        categorical={column: tuple(words) for column, words in categorical.items()},
        classes=tuple(classes), training=training, metrics=metrics, files={},
    )  # fmt: skip
    scorer = Scorer(LoadedModel(draft, "", network.eval()), device="cpu")
    outputs = scorer.outputs(golden)
    if not np.isfinite(outputs).all():
        raise BundleError(f"{folder}: the network's outputs for the golden rows are not all finite")
    for index in range(draft.outputs):
        golden = golden.append_column(f"output_{index}", pa.array(outputs[:, index], pa.float32()))
    scored = [scorer.score_batch(batch) for batch in reference.combine_chunks().to_batches()]
    if failed := [row for batch in scored for row in batch.failed]:
        raise BundleError(
            f"{folder}: the network gives no score for {len(failed)} of {reference.num_rows} reference rows; "
            f"the first of them: {failed[0].detail}"
        )
    scores = pa.Table.from_batches([batch.scores for batch in scored])
    for column in scores.column_names:
        reference = reference.append_column(column, scores[column])
    content = {
        WEIGHTS: safetensors.torch.save({key: value.contiguous() for key, value in network.state_dict().items()}),
        GOLDEN: _parquet(golden),
        REFERENCE: _parquet(reference),
    }
    digests = {file: hashlib.sha256(data).hexdigest() for file, data in content.items()}
    manifest = draft.model_copy(update={"files": digests})
    content[MANIFEST] = _dump(manifest)
    place = open_folder(str(folder))
    written = Bundle(manifest, hashlib.sha256(content[MANIFEST]).hexdigest(), content, place.uri)
    prove(written, type(network))
    written.write(place)
    return written.sha256


def _read(folder: Folder, name: str) -> bytes:
    try:
        return folder.read(name)
    except EntryError as error:
        raise BundleError(f"{error}; a bundle has files of its own folder: deliver it again") from error


def _dump(manifest: Manifest) -> bytes:
    return (json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n").encode()


def _faults(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'content'}: {e['msg']}" for e in error.errors())


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _table(bundle: Bundle, name: str) -> pa.Table:
    try:
        # pre_buffer reads in Arrow's I/O threads; one that lets go of Python's bytes at the exit of a short process
        # aborts it (status 134). And read_table would import pandas.
        source = pa.BufferReader(bundle.content[name])
        return pq.ParquetFile(source, pre_buffer=False).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:  # a damaged footer is an OSError
        raise BundleError(f"{bundle.uri}/{name} is no Parquet file: {error}") from error


def _dated(rows: pa.Table, where: str) -> pa.Table:
    """The rows with `dt` as dates, if they have it: pandas writes timestamps, others text."""
    if "dt" not in rows.column_names:
        return rows
    try:
        days = rows["dt"].cast(pa.date32())
    except pa.ArrowException as error:
        raise BundleError(f"{where}: dt is {rows['dt'].type}, not the day of each row: {error}") from error
    if days.null_count:
        raise BundleError(f"{where}: {days.null_count} of {len(days)} rows have no day in dt")
    return rows.set_column(rows.column_names.index("dt"), "dt", days)
