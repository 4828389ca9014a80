"""Why a row has its score, by occlusion: how much the score falls if a feature has its usual value instead.

A feature's usual value is the reference's median, for a categorical feature its most frequent value. The engine that
scored the row scores it again for each feature; effects of features that act together are not shared out, as they are
by Shapley values, which take some thousand times as many forward passes. Where features are made from columns, it is
the columns that get their usual values, and the features are made again: so a reason names what is in the row.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.errors import ScoringError
from batch_scoring.inference.inputs.encoded import GRID
from batch_scoring.inference.manifest import Manifest
from batch_scoring.inference.scorer import ScoredBatch, Scorer

BATCH_ROWS = 16_384

LEAST_LIFT = 0.005
"""Smallest effect on a probability that is named; it is shown as 0.01."""


class Occlusion:
    """Explains scores of a model."""

    def __init__(self, scorer: Scorer, reference: pa.Table, column: str) -> None:
        """Learn the usual values.

        Args:
            scorer: the model on its device.
            reference: a sample of the training window, with the features.
            column: score column to explain.

        Raises:
            ScoringError: the model has no such score column.
        """
        head = scorer.manifest.task
        if column not in head.measured:
            raise ScoringError(f"{column} is not a score of the model; its scores are {', '.join(head.measured)}")
        self._scorer, self._column = scorer, column
        self._is_probability = column in head.probabilities
        raw = scorer.reads
        self.usual = usual_values(reference, scorer.manifest) if raw is None else usual_cells(reference, raw)
        text = scorer.manifest.text
        self._texts = frozenset(text.columns if text else ())
        self.usual |= dict.fromkeys(sorted(self._texts), pa.scalar(""))  # no text is usual: what does it say at all?

    def effects(self, rows: pa.RecordBatch) -> dict[str, np.ndarray]:
        """By feature, float64[rows]: the score less the score with the feature's usual value; NaN without a score."""
        base = self._scores(rows)
        return {name: base - self._scores(_with(rows, name, value)) for name, value in self.usual.items()}

    def reasons(self, rows: pa.Table, most: int) -> pa.Array:
        """What lifts the score of each row most, as text: `carrier EV +0.12, seats 50 +0.04`.

        Args:
            rows: with the features.
            most: maximum number of features that are named.

        Returns:
            string[rows]; empty where no feature lifts the score.
        """
        batches = rows.select([*self._scorer.columns]).combine_chunks().to_batches(max_chunksize=BATCH_ROWS)
        return pa.array([text for batch in batches for text in self._reasons(batch, most)], pa.string())

    def _reasons(self, rows: pa.RecordBatch, most: int) -> Iterator[str]:
        names = [*self.usual]
        effects = self.effects(rows)
        block = np.nan_to_num(np.stack([effects[name] for name in names]))
        order = np.argsort(-block, axis=0, kind="stable")[:most]
        values = {name: rows.column(name).to_pylist() for name in names}
        least, form = (LEAST_LIFT, "+.2f") if self._is_probability else (0.0, "+.3g")
        for row in range(rows.num_rows):
            lifting = [at for at in order[:, row] if block[at, row] > least]
            cells = ("" if names[at] in self._texts else f" {_cell(values[names[at]][row])}" for at in lifting)
            pairs = zip(lifting, cells, strict=True)
            yield ", ".join(f"{names[at]}{cell} {block[at, row]:{form}}" for at, cell in pairs)

    def _scores(self, rows: pa.RecordBatch) -> np.ndarray:
        try:
            return _by_position(self._scorer.score_batch(rows), self._column)
        except ScoringError:
            # a usual value may be impossible beside a row's others; of so few rows all may raise
            if rows.num_rows <= GRID:
                raise
            parts = (rows.slice(start, GRID) for start in range(0, rows.num_rows, GRID))
            return np.concatenate([self._scores(part) for part in parts])


def usual_values(reference: pa.Table, manifest: Manifest) -> dict[str, pa.Scalar]:
    """The usual value of each feature that has any value in the reference: its median, or its most frequent value."""
    found: dict[str, pa.Scalar] = {}
    for name in manifest.numeric:
        values = reference[name].cast(pa.float64()).to_numpy()
        if np.isfinite(values).any():
            found[name] = pa.scalar(float(np.nanmedian(np.where(np.isfinite(values), values, np.nan))))
    for name in manifest.categorical:
        counts = pc.value_counts(reference[name].cast(pa.string()).drop_null()).to_pylist()
        if counts:
            found[name] = pa.scalar(min(counts, key=lambda item: (-item["counts"], item["values"]))["values"])
    return found


def usual_cells(reference: pa.Table, columns: pa.Schema) -> dict[str, pa.Scalar]:
    """The usual value of each raw column, in its own type; a column in which no value occurs twice, as a key, has none.

    Raw columns are occluded if a transform makes features of them: the model's own inputs would not be what a row has.
    """
    found: dict[str, pa.Scalar] = {}
    for field in columns:
        if field.name not in reference.column_names:  # a text: it is described there, not kept
            continue
        values = reference[field.name].drop_null().combine_chunks()
        if not len(values):
            continue
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            found[field.name] = pc.quantile(values, 0.5, interpolation="nearest")[0].cast(field.type)
            continue
        counts = pc.value_counts(values)
        most = pc.max(counts.field("counts"))
        if most.as_py() > 1:
            often = counts.field("values").filter(pc.equal(counts.field("counts"), most))
            found[field.name] = pc.min(often).cast(field.type)
    return found


def _with(rows: pa.RecordBatch, name: str, value: pa.Scalar) -> pa.RecordBatch:
    """The rows with one value in all cells of a column; a median of integers may lie between two of them."""
    position = rows.schema.get_field_index(name)
    return rows.set_column(position, name, pa.repeat(value, rows.num_rows))


def _by_position(scored: ScoredBatch, column: str) -> np.ndarray:
    scores = np.full(scored.source.num_rows, np.nan)
    failed = [row.position for row in scored.failed]
    scores[np.delete(np.arange(len(scores)), failed)] = scored.scores.column(column).to_numpy()
    return scores


def _cell(value: object) -> str:
    if value is None:
        return "missing"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
