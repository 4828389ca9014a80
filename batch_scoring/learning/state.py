"""What has been learned from training rows, and what it makes of any rows: the inputs of the network.

The same contract, transform, encoders and tokenizer as in scoring; here they are made of rows, and there of a bundle.
"""

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MethodType

import numpy as np
import pyarrow as pa

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.model_code import model_code
from batch_scoring.errors import ScoringError, UnsoundError
from batch_scoring.inference.heads.regression import Regression
from batch_scoring.inference.inputs import own_encoder, parameters
from batch_scoring.inference.inputs.encoded import Tensors
from batch_scoring.inference.inputs.encoder import Encoder
from batch_scoring.inference.inputs.fitted import Fitted
from batch_scoring.inference.inputs.own_encoder import OwnEncoder
from batch_scoring.inference.inputs.texts import Texts
from batch_scoring.inference.inputs.transform import Transform, whole
from batch_scoring.inference.manifest import LoadedModel, Manifest, Text
from batch_scoring.ingest import quarantine, samples
from batch_scoring.ingest.quarantine import Rejected
from batch_scoring.ingest.samples import Sample, SampleRows
from batch_scoring.ingest.schema.contract import Contract, Reason
from batch_scoring.learning import tokenizer, vocabulary

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
"""Kinds of parameters that are passed by position."""

_AT_ONCE = 65_536
"""Rows that are transformed and encoded in one record batch."""
_FIRST = 64
"""Rows that show what the pipeline's own encoder gives."""


@dataclass(frozen=True)
class Prepared:
    """Rows that can be scored, with everything that is known about them."""

    raw: pa.Table
    """The contract's columns, which a transform gets and a bundle holds."""
    rows: pa.Table
    """With the engineered features and all other columns."""
    inputs: Tensors
    """The network's inputs that have one shape in all rows."""
    rejected: pa.Table

    def take(self, positions: np.ndarray) -> "Prepared":
        """Some of the rows."""
        chosen = pa.array(positions)
        inputs = {name: values[positions] for name, values in self.inputs.items()}
        return Prepared(self.raw.take(chosen), self.rows.take(chosen), inputs, self.rejected)


class LearnedState:
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
            self.fitted = self.code.fit(side_by_side(raw, found.others)) if self.code.fit else {}
        if self.code.encode:
            self.encode = _own_encoder(self.code.encode, self.fitted or {}, raw)
        if self.code.transform:
            first = Transform(self.code.transform, self.fitted or {}, raw.schema, pa.schema([]), self.code.rules)
            made, _ = first.run(whole(raw.slice(0, _AT_ONCE)), typed=False)
            self.transform = replace(first, gives=made.schema)
            raw = _engineered(self.transform, raw)[0]
        self.vocabularies = vocabulary.vocabularies(raw, features.categorical, self._given)
        self.vectors = vocabulary.vector_sizes(raw, features.vectors)

    def prepare(self, found: SampleRows) -> Prepared:
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
        all_columns = side_by_side(rows, found.others.take(pa.array(positions)))
        rejected = pa.concat_tables([found.rejected, self._rejected(found, reasons)])
        return Prepared(raw, all_columns, inputs, rejected).take(kept)

    def _rejected(self, found: SampleRows, reasons: Mapping[int, Reason]) -> pa.Table:
        """Rows that meet the contract and cannot be scored, as in the quarantine."""
        key, rejected = self.contract.key, list[Rejected]()
        for position, reason in sorted(reasons.items()):
            file, number = (found.places[name][position].as_py() for name in found.places.column_names)
            row = whole(found.accepted.slice(position, 1))
            rejected += quarantine.from_rows(row, np.array([number]), {0: reason}, key, file)
        return pa.Table.from_batches([quarantine.file_rows(rejected, key)])

    def read_texts(self, content: bytes, rows: pa.Table, longest: int | None) -> None:
        """Take a tokenizer; `rows`: of the training data."""
        self.text = tokenizer.text_of(content, rows, self.pipeline.spec.features.text, longest)
        self.tokenizer = content

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
        own = [each.name for each in inspect.signature(bound).parameters.values() if each.kind in POSITIONAL]
        return dict(zip(own if len(own) >= len(taken) else taken, taken, strict=False))

    def _model(self) -> LoadedModel:
        """A model of all inputs but the texts, as the encoder wants one; its network is never run."""
        import torch

        features = self.pipeline.spec.features
        manifest = Manifest(
            name=self.pipeline.name,
            version="training",
            task=Regression(),
            arguments={},
            numeric=features.numeric,
            categorical={name: tuple(words) for name, words in self.vocabularies.items()},
            vectors=self.vectors,
            training={},
            metrics={},
            files={},
        )
        return LoadedModel(manifest, "", torch.nn.Identity(), encode=self.encode)


def side_by_side(rows: pa.Table, others: pa.Table) -> pa.Table:
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
    empty = side_by_side(raw.schema.empty_table(), transform.gives.empty_table())
    return pa.concat_tables(tables) if tables else empty, np.concatenate(positions), reasons


def _own_encoder(function: own_encoder.Function, fitted: Fitted, raw: pa.Table) -> OwnEncoder:
    """The pipeline's encoder and the arrays that it gives; a row for which it raises tells nothing of them.

    Raises:
        ScoringError: it raises for all of the first rows, or returns no arrays.
    """
    first = whole(raw.slice(0, _FIRST))
    for batch in (first, *(first.slice(row, 1) for row in range(first.num_rows))):
        with contextlib.suppress(ScoringError):
            return OwnEncoder.learn(function, fitted, batch)
    return OwnEncoder.learn(function, fitted, first.slice(0, 1))
