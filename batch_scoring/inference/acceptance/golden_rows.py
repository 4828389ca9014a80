"""Golden and reference rows with the trained network's own outputs, and the check that the scorer reproduces them.

Outputs and scores come from the network as it was trained, in eager torch, never from the code under test.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.errors import ScoringError, UnsoundError
from batch_scoring.inference.acceptance import agreement, eager
from batch_scoring.inference.acceptance.expected import match
from batch_scoring.inference.acceptance.functions import own_encoders
from batch_scoring.inference.acceptance.output_activation import (
    check_outputs_are_logits,
    check_outputs_are_probabilities,
)
from batch_scoring.inference.acceptance.padding import check_padding_is_not_read, rounds_by_lengths
from batch_scoring.inference.acceptance.reference import check_features, check_names, check_texts
from batch_scoring.inference.acceptance.row_independence import check_rows_are_independent
from batch_scoring.inference.acceptance.vocabularies import check_codes, check_tokens
from batch_scoring.inference.inputs.descriptors import Descriptors
from batch_scoring.inference.manifest import LoadedModel, Manifest
from batch_scoring.inference.scorer import Scorer

if TYPE_CHECKING:
    pass

ROWS_OF_LENGTHS = 1_024
"""Rows of the reference on which a network of texts shows whether it rounds by the lengths beside a text."""


@dataclass(frozen=True)
class Truth:
    """Reference and golden rows with the network's outputs."""

    model: LoadedModel
    """As it was trained; how its texts are grouped is decided."""
    reference: pa.Table
    """With the scores, as predictions have them."""
    golden: pa.Table
    """With `output_0` …"""
    outputs: np.ndarray
    """float32[rows, outputs] of the reference, followed by the golden rows."""

    def check_scorer(self, model: LoadedModel, expected: pa.Table | None) -> None:
        """Score all rows in the way that a day is scored, and compare.

        Args:
            model: built again from the bundle.
            expected: the training code's outputs for some rows, if given.

        Raises:
            UnsoundError: the scorer gives other outputs than the network, or than expected.
        """
        scorer = Scorer(model, device="cpu")
        parts = [_scored(scorer, table, what) for what, table in self._tables]
        found = np.concatenate([outputs for outputs, _ in parts])
        tolerance = model.manifest.tolerance
        deviation = agreement.worst(found, self.outputs, tolerance)
        if not deviation.is_accepted:
            raise UnsoundError(
                f"the scorer gives {deviation.found:.6g} for {self._place(deviation.row)}, the network as trained "
                f"{deviation.expected:.6g}; at most {deviation.bound:.2g} between them is accepted"
            )
        if expected is not None:
            scores = pa.concat_tables([scored for _, scored in parts])
            columns = {name: scores[name].to_numpy() for name in scores.column_names}
            columns |= dict(zip(self.manifest.output_columns, found.T, strict=True))
            with _of("expected"):
                match(expected, self.manifest, self.reference, self.golden).check(columns, tolerance)

    @property
    def manifest(self) -> Manifest:
        """Of the model."""
        return self.model.manifest

    @property
    def kept_reference(self) -> pa.Table:
        """The reference as a bundle keeps it: with numbers that describe texts and vectors in their place."""
        kept = Descriptors.of(self.model).in_place(self.reference)
        large = [
            field.name for field in kept.schema if pa.types.is_nested(field.type) or pa.types.is_binary(field.type)
        ]
        return kept.drop_columns(large)  # nothing compares images

    @property
    def golden_outputs(self) -> np.ndarray:
        """float32[golden rows, outputs]."""
        return self.outputs[self.reference.num_rows :]

    @property
    def _tables(self) -> list[tuple[str, pa.Table]]:
        return [("reference", self.reference), ("golden", self.golden)]

    def _place(self, row: int) -> str:
        if row < self.reference.num_rows:
            return _row("reference", self.reference, row)
        return _row("golden", self.golden, row - self.reference.num_rows)


def compute(model: LoadedModel, golden: pa.Table, reference: pa.Table) -> Truth:
    """Run the network over golden and reference rows, and check it and the rows.

    Raises:
        UnsoundError: it does not accept all codes, its output for a row is not finite, its outputs are probabilities,
            or a row's outputs depend on other rows; or the rows lack features, or the golden ones are all alike.
    """
    network, manifest = model.network, model.manifest
    with _of("golden"):
        _check_columns(manifest, golden)
    with _of("reference"):
        _check_columns(manifest, reference)
        check_features(manifest, reference)
    with _of("golden"):
        check_texts(manifest, golden)
    with _of("reference"):
        check_texts(manifest, reference)
    check_codes(model, reference)
    check_tokens(model, reference)
    if manifest.text and not manifest.text.exact and rounds_by_lengths(model, reference.slice(0, ROWS_OF_LENGTHS)):
        manifest = manifest.model_copy(update={"text": manifest.text.model_copy(update={"exact": True})})
        model = replace(model, manifest=manifest)
    with _of("golden"):
        of_golden = eager.outputs(model, golden)
    if not np.isfinite(of_golden).all():
        raise UnsoundError(f"the network's outputs for the golden rows are not all finite{_missing(manifest, golden)}")
    own_encoders.check_rows_are_independent(model, golden)
    own_encoders.check_two_threads(model, golden)
    check_rows_are_independent(model, golden)
    check_padding_is_not_read(model, golden)
    with _of("reference"):
        of_reference = eager.outputs(model, reference)
    bad = np.flatnonzero(~np.isfinite(of_reference).all(axis=1))
    if len(bad):
        raise UnsoundError(
            f"the network gives no score for {len(bad)} of {len(of_reference)} reference rows: its output is NaN or "
            f"infinite; the first of them: {_row('reference', reference, int(bad[0]))}"
        )
    if not np.ptp(of_golden, axis=0).any() and np.ptp(of_reference, axis=0).any():
        raise UnsoundError(
            "golden: the network gives the same outputs for all rows, so they prove little; expected rows as varied "
            "as those of the reference"
        )
    outputs = np.concatenate([of_reference, of_golden])
    check_outputs_are_logits(network, manifest, eager.inputs(model, golden), outputs)
    check_outputs_are_probabilities(manifest, outputs)
    for name, column in zip(manifest.output_columns, of_golden.T, strict=True):
        golden = golden.append_column(name, pa.array(column))
    for name, scores in manifest.task.scores_of_eager(of_reference).items():
        reference = reference.append_column(name, scores)
    return Truth(model, reference, golden, outputs)


def _missing(manifest: Manifest, golden: pa.Table) -> str:
    """What most often makes outputs NaN: values that are missing; empty if none is."""
    counts = {name: pc.sum(pc.is_null(golden[name], nan_is_null=True)).as_py() for name in manifest.numeric}
    columns = ", ".join(f"{name} in {count} of {golden.num_rows}" for name, count in counts.items() if count)
    if not columns:
        return ""
    return f"; missing values ({columns}) are NaN in numeric: forward has to fill them, as numeric.nan_to_num(0.0) does"


def _check_columns(manifest: Manifest, rows: pa.Table) -> None:
    """Check that no column occurs twice or is one that the network adds."""
    check_names(rows)
    ours = {*manifest.output_columns, *manifest.task.columns}
    if there := sorted(ours.intersection(rows.column_names)):
        raise UnsoundError(f"it has {', '.join(there)} already; leave out what the network is to compute")


@contextlib.contextmanager
def _of(what: str) -> Iterator[None]:
    """Prefix an UnsoundError with the name of the table."""
    try:
        yield
    except UnsoundError as error:
        raise UnsoundError(f"{what}: {error}") from error


def _scored(scorer: Scorer, rows: pa.Table, what: str) -> tuple[np.ndarray, pa.Table]:
    """Outputs and scores of a table, by the scorer."""
    try:
        outputs, scored = scorer.outputs(rows), scorer.score_batch(rows.combine_chunks().to_batches()[0])
    except ScoringError as error:
        raise UnsoundError(f"the scorer cannot score {what}: {error}") from error
    if scored.failed:
        first = scored.failed[0]
        raise UnsoundError(
            f"the scorer gives no score for {len(scored.failed)} of {rows.num_rows} {what} rows; the first of them: "
            f"{_row(what, rows, first.position)}: {first.detail}"
        )
    return outputs, pa.Table.from_batches([scored.scores])


def _row(what: str, rows: pa.Table, row: int) -> str:
    """A row by its position and its first column, which is the key in most tables."""
    name = rows.column_names[0]
    return f"{what} row {row} ({name} {rows[name][row].as_py()!r})"
