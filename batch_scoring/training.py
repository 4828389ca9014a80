"""Public door of training scripts: the rows and tensors that a network is trained on, and the bundle of the result.

    data = Training("loans", "loans.csv", held_out=8)
    network = data.network(hidden=64)
    ...                                    # network(**data.tensors), or for tensors, rows in data.batches(256)
    data.write("data/loans/models/v1", network, classes=["repays", "defaults"])

Rows are validated, transformed and encoded by the code that scores a day, so training and scoring cannot differ. The
transform's state, vocabularies and tokenizer are learned here, once, from the training rows alone.
"""

import contextlib
import functools
import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeAlias, Union, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter, ValidationError

from batch_scoring.config.loader import declared_pipeline
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.model_code import model_code
from batch_scoring.errors import CalibrationError, ScoringError, UnsoundError
from batch_scoring.inference.acceptance.expected import columns_of, keys_of
from batch_scoring.inference.acceptance.golden_choice import varied
from batch_scoring.inference.bundle import GOLDEN_ROWS, read_bundle, write_bundle
from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.heads.task import Task, TaskName, from_name
from batch_scoring.inference.heads.tolerance import Tolerance
from batch_scoring.inference.inputs import learned, own_encoder, parameters
from batch_scoring.inference.inputs.encoded import Tensors
from batch_scoring.inference.inputs.encoder import Encoder
from batch_scoring.inference.inputs.fitted import Fitted
from batch_scoring.inference.inputs.own_encoder import OwnEncoder
from batch_scoring.inference.inputs.ragged import Ragged, by_width
from batch_scoring.inference.inputs.texts import Texts, joined
from batch_scoring.inference.inputs.transform import Transform, whole
from batch_scoring.inference.manifest import LoadedModel, Manifest, Text
from batch_scoring.ingest import quarantine, samples
from batch_scoring.ingest.quarantine import Rejected
from batch_scoring.ingest.samples import DAY, Sample, SampleRows
from batch_scoring.ingest.schema.contract import Contract, Reason
from batch_scoring.monitoring.drift.calibration import calibrate
from batch_scoring.storage.folders.addresses import open_folder

if TYPE_CHECKING:
    import pandas as pd
    import torch

Values: TypeAlias = Union[np.ndarray, "torch.Tensor", Sequence[float]]
"""Numbers of each row, in the order of `rows`."""

REFERENCE_ROWS = 50_000
"""Rows of the sample that a bundle keeps for drift, spread over its days."""

_AT_ONCE = 65_536
"""Rows that are transformed and encoded in one record batch."""
_FORWARD_ROWS = 1_024
"""Rows of a forward pass of `Examples.outputs`."""
_ARGUMENTS = "batch_scoring_arguments"
"""Attribute of a network with what it was built with; copies of the network keep it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Rows:
    """Rows that can be scored, with everything that is known about them."""

    raw: pa.Table
    """The contract's columns, which a transform gets and a bundle holds."""
    rows: pa.Table
    """With the engineered features and all other columns."""
    inputs: Tensors
    """The network's inputs that have one shape in all rows."""
    rejected: pa.Table

    def take(self, positions: np.ndarray) -> "_Rows":
        chosen = pa.array(positions)
        inputs = {name: values[positions] for name, values in self.inputs.items()}
        return _Rows(self.raw.take(chosen), self.rows.take(chosen), inputs, self.rejected)


class _Learned:
    """What has been learned from the training rows: it turns any other rows into inputs of the network."""

    def __init__(self, pipeline: Pipeline, vocabularies: Mapping[str, Sequence[str]] | None) -> None:
        self.pipeline = pipeline
        self.code = model_code(pipeline)
        self.contract = Contract(pipeline)
        self.fitted: Fitted | None = None
        self.transform: Transform | None = None
        self.encode: OwnEncoder | None = None
        self.vocabularies: dict[str, list[str]] = {}
        self.vectors: dict[str, int] = {}
        self.text: Text | None = None
        self.tokenizer: bytes | None = None
        self._given = vocabularies

    def read(self, sample: Sample) -> SampleRows:
        """The rows of a sample that meet the contract, and the others."""
        return samples.read(sample, self.contract, self.pipeline.spec.input.csv)

    def learn(self, found: SampleRows) -> None:
        """Call fit, find out what the pipeline's functions make, and learn vocabularies and the length of vectors."""
        raw, features = found.accepted, self.pipeline.spec.features
        if self.code.transform or self.code.encode:
            self.fitted = self.code.fit(_joined(raw, found.others)) if self.code.fit else {}
        if self.code.encode:
            self.encode = _own_encoder(self.code.encode, self.fitted or {}, raw)
        if self.code.transform:
            first = Transform(self.code.transform, self.fitted or {}, raw.schema, pa.schema([]), self.code.rules)
            made, _ = first.run(whole(raw.slice(0, _AT_ONCE)), typed=False)
            self.transform = replace(first, gives=made.schema)
            raw = _engineered(self.transform, raw)[0]
        self.vocabularies = learned.vocabularies(raw, features.categorical, self._given)
        self.vectors = learned.vector_sizes(raw, features.vectors)

    def prepare(self, found: SampleRows) -> _Rows:
        """The rows that can be scored, with the inputs of the network."""
        rows, positions, reasons = _engineered(self.transform, found.accepted)
        parts: list[Tensors] = []
        encoder = Encoder(self._model())
        for start in range(0, rows.num_rows, _AT_ONCE):
            batch = whole(rows.slice(start, _AT_ONCE))
            encoded = encoder.encode(batch)
            parts.append({name: values[: batch.num_rows] for name, values in encoded.groups[0].tensors.items()})
            for row in encoded.failed:
                reasons[int(positions[start + row.position])] = Reason("score", row.rule, row.column, row.detail)
        inputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
        kept = np.flatnonzero(~np.isin(positions, [*reasons]))
        raw = found.accepted.take(pa.array(positions))
        all_columns = _joined(rows, found.others.take(pa.array(positions)))
        rejected = pa.concat_tables([found.rejected, self._rejected(found, reasons)])
        return _Rows(raw, all_columns, inputs, rejected).take(kept)

    def _rejected(self, found: SampleRows, reasons: Mapping[int, Reason]) -> pa.Table:
        """Rows that meet the contract and cannot be scored, as in the quarantine."""
        key, rejected = self.contract.key, list[Rejected]()
        for position, reason in sorted(reasons.items()):
            file, number = (found.places[name][position].as_py() for name in found.places.column_names)
            row = whole(found.accepted.slice(position, 1))
            rejected += quarantine.from_rows(row, np.array([number]), {0: reason}, key, file)
        return pa.Table.from_batches([quarantine.file_rows(rejected, key)])

    def read_texts(self, tokenizer: bytes, rows: pa.Table, longest: int | None) -> None:
        """Take a tokenizer; `rows`: of the training data."""
        self.text = learned.text_of(tokenizer, rows, self.pipeline.spec.features.text, longest)
        self.tokenizer = tokenizer

    def texts(self) -> Texts | None:
        """What reads the texts; None if the pipeline has none.

        Raises:
            UnsoundError: there is no tokenizer yet.
        """
        if not self.pipeline.spec.features.text:
            return None
        if self.text is None or self.tokenizer is None:
            raise UnsoundError(
                f"features.text of {self.pipeline.name} needs a tokenizer: give tokenizer=, or call train_tokenizer()"
            )
        return Texts(self.text, self.tokenizer)

    def parameters(self, inputs: Tensors) -> dict[str, str]:
        """The inputs that the network takes, by the names of its parameters, in their order.

        Raises:
            UnsoundError: nothing fills one of its parameters, or it does not take an input.
        """
        forward = getattr(self.code.network, "forward", None)
        if forward is None:  # a function that builds the network
            return {name: name for name in inputs}
        bound = MethodType(forward, self)  # without the first parameter
        filled = [name for name, values in inputs.items() if values.shape[1:] != (0,)]
        taken = parameters.order(bound, [*inputs], filled)
        own = [each.name for each in inspect.signature(bound).parameters.values() if each.kind in _NAMED]
        return dict(zip(own if len(own) >= len(taken) else taken, taken, strict=False))

    def _model(self) -> LoadedModel:
        """A model of all inputs but the texts, as the encoder wants one; its network is never run."""
        import torch

        features = self.pipeline.spec.features
        manifest = Manifest(
            name=self.pipeline.name,
            version="training",
            task=TypeAdapter(Task).validate_python({"kind": "regression"}),
            arguments={},
            numeric=features.numeric,
            categorical={name: tuple(words) for name, words in self.vocabularies.items()},
            vectors=self.vectors,
            training={},
            metrics={},
            files={},
        )
        return LoadedModel(manifest, "", torch.nn.Identity(), encode=self.encode)


_NAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Examples:
    """Rows of a sample with the inputs that the network gets for them."""

    def __init__(self, learned: _Learned, found: _Rows) -> None:
        self._learned, self._found = learned, found
        self._parameters: dict[str, str] | None = None
        """The inputs by the names of the network's parameters, once they are known."""

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.rows.num_rows)

    @property
    def rows(self) -> pa.Table:
        """The accepted rows with all their columns, the label and engineered features among them."""
        return self._found.rows

    @property
    def rejected(self) -> pa.Table:
        """The other rows with their reasons, as in the quarantine."""
        return self._found.rejected

    @functools.cached_property
    def tensors(self) -> "dict[str, torch.Tensor]":
        """The inputs of all rows by the names of forward's parameters; texts are padded to the longest of them."""
        return self._tensors(np.arange(len(self)), max(self._widths, default=0))

    def labels(self, column: str, classes: Sequence[object] | None = None) -> "torch.Tensor":
        """A column as what the network shall give.

        Args:
            column: of the rows.
            classes: the values in the order of the network's outputs. Without them, the column's numbers.

        Returns:
            int64[rows], positions of the classes; or float32[rows].

        Raises:
            UnsoundError: there is no such column, or a row has no value, or another one than the classes.
        """
        import torch

        if column not in self.rows.column_names:
            raise UnsoundError(f"the sample has no column {column}; it has {', '.join(self.rows.column_names)}")
        values = self.rows[column].combine_chunks()
        if values.null_count:
            raise UnsoundError(
                f"{values.null_count} of {len(self)} rows have no {column}; leave them out of the sample"
            )
        if classes is None:
            return torch.from_numpy(_numbers(values, column).astype(np.float32))
        known = {str(each): code for code, each in enumerate(classes)} | {
            each: code for code, each in enumerate(classes)
        }
        codes = [known.get(value, known.get(str(value))) for value in values.to_pylist()]
        if None in codes:
            strange = sorted(
                {str(value) for value, code in zip(values.to_pylist(), codes, strict=True) if code is None}
            )
            raise UnsoundError(
                f"{column} has {', '.join(map(repr, strange[:5]))}; the classes are {', '.join(map(repr, classes))}"
            )
        return torch.tensor(codes)

    def batches(self, size: int, *, seed: int = 0) -> "Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]":
        """Yield all rows once, shuffled; texts of one batch are padded to one width.

        Args:
            size: rows of a batch, at most.
            seed: of the order; give each epoch another one.

        Yields:
            The inputs of some rows, as in `tensors`, and int64[rows], their positions among all rows.
        """
        random = np.random.default_rng(seed)
        parts = [part for group in self._by_width() for part in _pieces(random.permutation(group[1]), size, group[0])]
        for place in random.permutation(len(parts)):
            yield self._batch(*parts[place])

    def outputs(self, network: "torch.nn.Module") -> "torch.Tensor":
        """The network's outputs for all rows, in their order and in evaluation mode: float32[rows, outputs]."""
        import torch

        was_training, device = network.training, next((one.device for one in network.parameters()), None)
        network.eval()
        found, order = [], []
        with torch.inference_mode():
            for width, group in self._by_width():
                for part in _pieces(group, _FORWARD_ROWS, width):
                    tensors, rows = self._batch(*part)
                    result = network(**{name: values.to(device) for name, values in tensors.items()})
                    found.append(result.float().cpu().reshape(len(rows), -1))
                    order.append(rows)
        network.train(was_training)
        return torch.cat(found)[torch.cat(order).argsort()]

    @functools.cached_property
    def _tokens(self) -> tuple[Texts, Ragged] | None:
        texts = self._learned.texts()
        return (texts, texts.encode(whole(self.rows.select(texts.text.columns)))) if texts else None

    def _by_width(self) -> list[tuple[int, np.ndarray]]:
        """The rows in groups whose inputs have one shape: the width of their texts, and their positions."""
        if self._tokens is None:
            return [(0, np.arange(len(self)))]
        texts, ids = self._tokens
        return list(by_width(ids.lengths, texts.widths))

    @property
    def _widths(self) -> list[int]:
        return [width for width, _ in self._by_width()]

    def _batch(self, width: int, positions: np.ndarray) -> "tuple[dict[str, torch.Tensor], torch.Tensor]":
        import torch

        return self._tensors(positions, width), torch.from_numpy(positions)

    def _tensors(self, positions: np.ndarray, width: int) -> "dict[str, torch.Tensor]":
        import torch

        inputs = {name: values[positions] for name, values in self._found.inputs.items()}
        if self._tokens:
            texts, ids = self._tokens
            inputs["tokens"] = ids.matrix(positions, len(positions), width, texts.text.padding)
        if self._parameters is None:
            self._parameters = self._learned.parameters(inputs)
        return {name: torch.from_numpy(inputs[own]) for name, own in self._parameters.items()}


class Training(Examples):
    """The training rows of a pipeline, and what is learned from them."""

    def __init__(
        self,
        pipeline: str | Pipeline,
        sample: Sample,
        *,
        held_out: int | None = None,
        vocabularies: Mapping[str, Sequence[str]] | None = None,
        tokenizer: str | Path | bytes | None = None,
        longest: int | None = None,
    ) -> None:
        """Read a sample; learn the transform's state, and the vocabularies.

        Args:
            pipeline: its name, or the pipeline.
            sample: a table, a pandas frame, or files of any landing format: the columns of the schema, the label, and
                the day of each row in `dt`, or in the names of the files' folders.
            held_out: hold out every so many-th day of the sample, or row if it has fewer days: nothing is learned from
                those rows, and they are `held_out`.
            vocabularies: words of categorical columns, in place of those of the sample.
            tokenizer: of the text columns, a tokenizer.json or its content; `train_tokenizer` learns one.
            longest: tokens that are kept of a text; as many as 99 % of the texts have, 512 at most, if None.

        Raises:
            SpecError: there is no such pipeline.
            ContractError: the sample lacks a column, or has it with another type.
            UnsoundError: nothing can be learned from it.
        """
        found = declared_pipeline(pipeline) if isinstance(pipeline, str) else pipeline
        state = _Learned(found, vocabularies)
        everything = state.read(sample)
        _report(everything)
        is_held = _held_out(everything, held_out)
        known = _only(everything, ~is_held)
        state.learn(known)
        super().__init__(state, state.prepare(known))
        self._every, self._longest = held_out, longest
        self._held_out: Examples | None = None
        if held_out:
            rest = replace(_only(everything, is_held), rejected=everything.rejected.slice(0, 0))
            self._held_out = Examples(state, state.prepare(rest))
        if tokenizer is not None:
            content = tokenizer if isinstance(tokenizer, bytes) else Path(tokenizer).read_bytes()
            state.read_texts(content, self.rows, longest)

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline."""
        return self._learned.pipeline

    @property
    def held_out(self) -> Examples:
        """Rows that nothing was learned from.

        Raises:
            UnsoundError: none are held out.
        """
        if self._held_out is None:
            raise UnsoundError("no rows are held out; hold out every 8th day with Training(…, held_out=8)")
        return self._held_out

    @property
    def vocabularies(self) -> dict[str, list[str]]:
        """The words of each categorical column; code = position + 1, 0 is unknown or missing."""
        return self._learned.vocabularies

    @property
    def fitted(self) -> Fitted:
        """What the transform's `fit` has learned."""
        return self._learned.fitted or {}

    @property
    def tokenizer(self) -> bytes | None:
        """The content of tokenizer.json."""
        return self._learned.tokenizer

    @property
    def vocabulary_size(self) -> int:
        """Rows that an embedding of `tokens` needs; 0 without a tokenizer."""
        return learned.size_of(self.tokenizer) if self.tokenizer else 0

    def train_tokenizer(self, size: int = 8_000) -> bytes:
        """Learn a tokenizer from the training rows; see `inputs/learned.py`.

        Args:
            size: tokens at most.

        Raises:
            UnsoundError: the pipeline has no text columns, or a tokenizer already.
        """
        columns = self.pipeline.spec.features.text
        if not columns or self.tokenizer:
            what = "has a tokenizer already" if columns else "names no text columns in features.text"
            raise UnsoundError(f"{self.pipeline.name} {what}")
        texts = joined(self.rows, columns).to_pylist()
        self._learned.read_texts(learned.train_tokenizer(texts, size), self.rows, self._longest)
        return self.tokenizer or b""

    def encode(self, sample: Sample) -> Examples:
        """Other rows with the same state, vocabularies and tokenizer: nothing is learned from them.

        Raises:
            ContractError: the sample lacks a column, or has it with another type.
            UnsoundError: no row is accepted.
        """
        found = self._learned.read(sample)
        _report(found)
        return Examples(self._learned, self._learned.prepare(found))

    def network(self, **arguments: Any) -> "torch.nn.Module":  # noqa: ANN401  (of the user's class)
        """Build the pipeline's network; `write` knows what it was built with.

        Args:
            arguments: of its class; plain JSON.
        """
        network = self._learned.code.network(**arguments)
        vars(network)[_ARGUMENTS] = arguments
        return network

    def write(
        self,
        folder: str | Path,
        network: "torch.nn.Module",
        *,
        classes: Sequence[str] = (),
        task: Head | TaskName | None = None,
        version: str = "",
        arguments: Mapping[str, Any] | None = None,
        expected: "Values | pa.Table | pd.DataFrame | None" = None,
        training: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        golden_tolerance: Tolerance | float | None = None,
    ) -> str:
        """Write the trained network as a bundle, calibrated if the sample has enough days.

        Args:
            folder: the new bundle's; files of the same names are replaced.
            network: trained, on the CPU.
            classes: of a classification, in the order of the network's outputs.
            task: of anything else: a head of `inference/heads/`, or "regression".
            version: stored in every scored row; the folder's name if empty.
            arguments: what the network was built with, if `network()` of this object has not built it.
            expected: what the script itself computes, and the engine has to: outputs or scores of `rows`, in their
                order; or a table with the key (and `dt`), as `write_bundle` takes it. Of a sample of more than
                50,000 rows, those in the reference are compared.
            training: for people, beside the days and the number of rows.
            metrics: measured figures, by name.
            golden_tolerance: see `write_bundle`.

        Returns:
            The bundle's sha256.

        Raises:
            BundleError: the network cannot be scored with, or gives other outputs than expected; nothing is written.
            UnsoundError: the sample is too small, there is no tokenizer for its texts, or what the network was built
                with is not known.
        """
        folder, head = Path(folder), _head(task, classes)
        self._learned.texts()
        everything = [self._found, *([self._held_out._found] if self._held_out else [])]
        raw = pa.concat_tables([_joined(each.raw, _day_alone(each.rows)) for each in everything])
        rows = pa.concat_tables([each.rows for each in everything], promote_options="permissive")
        if rows.num_rows < GOLDEN_ROWS:
            raise UnsoundError(f"the sample has {rows.num_rows} accepted rows; expected at least {GOLDEN_ROWS}")
        chosen = _spread(rows, REFERENCE_ROWS)
        spec, state = self.pipeline.spec, self._learned
        golden = chosen[varied(rows.take(pa.array(chosen)), spec.features.inputs, GOLDEN_ROWS)]
        reference = raw.take(pa.array(chosen))
        write_bundle(
            folder,
            network=network,
            arguments=dict(self._arguments(network) if arguments is None else arguments),
            name=self.pipeline.name,
            version=version or folder.name,
            task=head,
            numeric=list(spec.features.numeric),
            categorical=state.vocabularies,
            training={**self._described(rows), **(training or {})},
            metrics=dict(metrics or {}),
            golden=raw.take(pa.array(golden)).select(self._found.raw.column_names),
            reference=reference,
            expected=None if expected is None else self._expected(expected, head, raw, chosen),
            golden_tolerance=golden_tolerance,
            text=state.text,
            tokenizer=state.tokenizer,
            vectors=state.vectors,
            code=state.code,
            fitted=state.fitted,
        )
        return self._calibrated(folder, version or folder.name)

    def _arguments(self, network: "torch.nn.Module") -> Mapping[str, Any]:
        """What the network was built with.

        Raises:
            UnsoundError: nobody knows.
        """
        if _ARGUMENTS in vars(network):
            found: Mapping[str, Any] = vars(network)[_ARGUMENTS]
            return found
        wanted = inspect.signature(type(network)).parameters.values()
        if required := [each.name for each in wanted if each.default is each.empty and each.kind in _NAMED]:
            given = ", ".join(f'"{name}": …' for name in required)
            raise UnsoundError(
                f"what the network was built with is not known: build it with data.network({required[0]}=…) in place "
                f"of {type(network).__name__}({required[0]}=…), or give write(…, arguments={{{given}}})"
            )
        return {}

    def _described(self, rows: pa.Table) -> dict[str, Any]:
        """Of the training, for people."""
        days = pc.min_max(rows[DAY]).as_py() if DAY in rows.column_names else {}
        window = {"from": str(days["min"]), "to": str(days["max"])} if days else {}
        unit = "day" if self._every and _is_by_day(rows, self._every) else "row"
        return window | {"rows": len(self)} | ({"validation": f"every {self._every}th {unit}"} if self._every else {})

    def _expected(
        self, expected: "Values | pa.Table | pd.DataFrame", head: Head, raw: pa.Table, chosen: np.ndarray
    ) -> pa.Table:
        """What the script computes for rows of the reference, as a table with their keys."""
        keys = [name for name in (self._learned.contract.key, DAY) if name in raw.column_names]
        if isinstance(expected, pa.Table) or type(expected).__name__ == "DataFrame":
            table = samples.table_of(expected)
            shared = [name for name in keys if name in table.column_names]
            left_out = np.delete(np.arange(raw.num_rows), chosen)
            return _without(table, raw.take(pa.array(left_out)), shared) if len(left_out) and shared else table
        values = _array(cast("Values", expected))
        if len(values) != len(self):
            raise UnsoundError(
                f"expected has {len(values)} rows; data.rows has {len(self)}: give one for each, in order"
            )
        compared = chosen[chosen < len(self)]
        table = raw.select(keys).take(pa.array(compared))
        outputs = [f"output_{index}" for index in range(head.width)]
        for name, column in columns_of(values[compared], head, outputs).items():
            table = table.append_column(name, pa.array(column))
        return table

    def _calibrated(self, folder: Path, version: str) -> str:
        """Learn the reference profile of a bundle, if it has days for one; return its sha256."""
        place = open_folder(str(folder))
        bundle = read_bundle(place)
        try:
            profile = calibrate(bundle, self.pipeline.spec.features.day_grain)
        except CalibrationError as error:
            _log.warning(f"{folder} is written, but not calibrated, so drift is not tested: {error}")
            return bundle.sha256
        bundle = bundle.with_profile(profile, version)
        bundle.write(place)
        return bundle.sha256


def _joined(rows: pa.Table, others: pa.Table) -> pa.Table:
    """The columns of both; of two of one name, that of the rows."""
    for name in others.column_names:
        if name not in rows.column_names:
            rows = rows.append_column(name, others[name])
    return rows


def _engineered(transform: Transform | None, raw: pa.Table) -> tuple[pa.Table, np.ndarray, dict[int, Reason]]:
    """Rows with their engineered features, their positions, and why the others have none, by position."""
    if transform is None:
        return raw, np.arange(raw.num_rows), {}
    tables, positions, reasons = [], [np.empty(0, np.int64)], dict[int, Reason]()
    for start in range(0, raw.num_rows, _AT_ONCE):
        made = transform.apply(whole(raw.slice(start, _AT_ONCE)))
        tables.append(pa.Table.from_batches([made.rows]))
        positions.append(start + made.positions)
        reasons |= {start + row.position: Reason("score", row.rule, row.column, row.detail) for row in made.broken}
    empty = _joined(raw.schema.empty_table(), transform.gives.empty_table())
    return pa.concat_tables(tables) if tables else empty, np.concatenate(positions), reasons


def _own_encoder(function: own_encoder.Function, fitted: Fitted, raw: pa.Table) -> OwnEncoder:
    """The pipeline's encoder and the arrays that it gives; a row for which it raises tells nothing of them.

    Raises:
        ScoringError: it raises for all of the first rows, or returns no arrays.
    """
    first = whole(raw.slice(0, GOLDEN_ROWS))
    for batch in (first, *(first.slice(row, 1) for row in range(first.num_rows))):
        with contextlib.suppress(ScoringError):
            return OwnEncoder.learn(function, fitted, batch)
    return OwnEncoder.learn(function, fitted, first.slice(0, 1))


def _numbers(values: pa.Array, column: str) -> np.ndarray:
    try:
        found: np.ndarray = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return found
    except pa.ArrowException as error:
        raise UnsoundError(
            f"{column} is {values.type}; expected numbers, or the classes that its values mean"
        ) from error


def _pieces(positions: np.ndarray, size: int, width: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(positions), size):
        yield width, positions[start : start + size]


def _is_by_day(found: pa.Table, every: int) -> bool:
    """Whether whole days are held out, and not rows."""
    return DAY in found.column_names and len(pc.unique(found[DAY])) >= every


def _held_out(found: SampleRows, every: int | None) -> np.ndarray:
    """bool[rows]: which rows are held out."""
    if every is None:
        return np.zeros(found.accepted.num_rows, bool)
    if every < 2:
        raise UnsoundError(f"held_out is {every}; expected 2 or more: every so many-th day is held out")
    number = np.arange(found.accepted.num_rows)
    if _is_by_day(found.others, every):
        _, number = np.unique(found.others[DAY].to_numpy(), return_inverse=True)
    held = np.asarray(number % every == every - 1)
    if not held.any():
        raise UnsoundError(f"held_out is {every}, and the sample has {len(held)} rows: expected fewer")
    return held


def _only(found: SampleRows, mask: np.ndarray) -> SampleRows:
    """Some of the accepted rows."""
    chosen = pa.array(mask)
    return replace(
        found,
        accepted=found.accepted.filter(chosen),
        others=found.others.filter(chosen),
        places=found.places.filter(chosen),
    )


def _report(found: SampleRows) -> None:
    """Say in one line how many rows the schema rejects, and why.

    Raises:
        UnsoundError: it accepts none.
    """
    accepted, rejected = found.accepted.num_rows, found.rejected
    names = pc.binary_join_element_wise(rejected["column"], rejected["rule"], " ")
    counts = sorted(names.value_counts().to_pylist(), key=lambda each: (-each["counts"], each["values"]))
    said = ", ".join(f"{each['counts']:,} {each['values'].strip()}" for each in counts[:5])
    if not accepted:
        raise UnsoundError(f"the sample has no row that the schema accepts; of {rejected.num_rows:,}: {said or 'none'}")
    if DAY not in found.others.column_names and "key_is_unique" in rejected["rule"].to_pylist():
        said += f"; with the day of each row in {DAY}, a key may occur once a day"
    if rejected.num_rows:
        rows = accepted + rejected.num_rows
        _log.warning(
            f"{rejected.num_rows:,} of {rows:,} rows are rejected, as scoring would: {said} (see data.rejected)"
        )


def _head(task: Head | TaskName | None, classes: Sequence[str]) -> Head:
    """The head that `write` is told.

    Raises:
        UnsoundError: it is told none, or two, or an impossible one.
    """
    if isinstance(task, Head):
        if classes:
            raise UnsoundError("classes and task are given; the head itself has its classes")
        return task
    if task is None and not classes:
        raise UnsoundError('neither classes nor task is given; expected classes=[…], task="regression" or a head')
    try:
        found: Head = TypeAdapter(Task).validate_python(from_name(task or "classification", classes))
        return found
    except ValidationError as error:
        raise UnsoundError("; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())) from error


def _day_alone(rows: pa.Table) -> pa.Table:
    return rows.select([DAY] if DAY in rows.column_names else [])


def _spread(rows: pa.Table, most: int) -> np.ndarray:
    """At most so many positions, ascending, spread over the days in proportion; always the same ones."""
    if rows.num_rows <= most:
        return np.arange(rows.num_rows)
    order = np.random.default_rng(0).permutation(rows.num_rows)
    if DAY in rows.column_names:
        order = order[np.argsort(rows[DAY].to_numpy()[order], kind="stable")]
    return np.sort(order[np.linspace(0, len(order), most, endpoint=False).astype(np.int64)])


def _without(table: pa.Table, others: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The rows of a table whose keys are none of the others'."""
    left_out = set(keys_of(others, keys))
    return table.filter(pa.array([key not in left_out for key in keys_of(table, keys)], pa.bool_()))


def _array(values: Values) -> np.ndarray:
    """Numbers of each row as float64."""
    detached = values.detach().cpu() if hasattr(values, "detach") else values
    return np.asarray(detached, np.float64)
