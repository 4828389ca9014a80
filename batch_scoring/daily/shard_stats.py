"""Statistics of a shard's rows, kept in its footer: checks and reports never read the rows again."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.inference.manifest import Manifest
from batch_scoring.inference.scorer import ScoredBatch
from batch_scoring.ingest import quarantine

CATEGORIES = 50_000
"""Maximum number of values of a column in a shard's statistics: more than any vocabulary has."""

BINS = 20
"""Number of bins in the histogram of the scores."""

UNKNOWN_VALUES = 20
"""Maximum number of unknown values of a column in a shard's statistics, the most frequent first."""


class ColumnCounts:
    """Missing values and categories of accepted rows."""

    def __init__(self, inputs: Sequence[str], categorical: Sequence[str]) -> None:
        """`inputs`: the model's inputs among the columns; `categorical`: those of them that are categories."""
        self.missing = dict.fromkeys(inputs, 0)
        self._categories: dict[str, Counter[str]] = {name: Counter() for name in categorical}

    def add(self, rows: pa.RecordBatch) -> None:
        """Count accepted rows."""
        for name in self.missing:
            self.missing[name] += rows.column(name).null_count
        for name, counter in self._categories.items():
            counts = pc.value_counts(rows.column(name).drop_null())
            words = counts.field("values").cast(pa.string())  # as the scorer and the reference spell them
            for word, count in zip(words.to_pylist(), counts.field("counts").to_pylist(), strict=True):
                counter[quarantine.shortened(word, quarantine.CELL_CHARACTERS)] += count

    @property
    def categories(self) -> dict[str, dict[str, int]]:
        """Rows by column and value, the most frequent first."""
        return {name: dict(counter.most_common(CATEGORIES)) for name, counter in self._categories.items()}


class Tally:
    """Sums over scores."""

    def __init__(self, manifest: Manifest) -> None:
        self._head = manifest.task
        self._sums: dict[str, float] = {}
        self._squares: dict[str, float] = {}
        self._bins = np.zeros(BINS, np.int64)
        self._classes = np.zeros(len(manifest.task.class_names), np.int64)
        self._unknown: dict[str, dict[str, int]] = {}
        self._bad = self._crossed = 0

    def add(self, scored: ScoredBatch) -> None:
        """Count one record batch."""
        scores = scored.scores
        for column in self._head.measured:
            values = scores.column(column).to_numpy().astype(np.float64)
            self._sums[column] = self._sums.get(column, 0.0) + float(values.sum())
            # not values @ values: BLAS would wake its own threads, which spin against those that score
            self._squares[column] = self._squares.get(column, 0.0) + float(np.square(values).sum())
        self._bad += int((~self._head.is_sound(scores)).sum())
        self._crossed += int(self._head.is_crossed(scores).sum())
        if self._head.telling_column in self._head.probabilities:
            score = scores.column(self._head.telling_column).to_numpy()
            bins = np.clip(np.nan_to_num(score) * BINS, 0, BINS - 1).astype(np.int64)
            self._bins += np.bincount(bins, minlength=BINS)
        if self._head.class_names:
            self._classes += self._head.class_counts(scores)
        for column, values in scored.unknown.items():
            counts = self._unknown.setdefault(column, {})
            for value, rows in values.items():
                word = quarantine.shortened(value, quarantine.CELL_CHARACTERS)
                counts[word] = counts.get(word, 0) + rows

    def figures(self) -> dict[str, Any]:
        """The corresponding fields of the shard's statistics."""
        return {
            "sums": self._sums,
            "squares": self._squares,
            "histogram": tuple(self._bins.tolist()) if self._head.telling_column in self._head.probabilities else (),
            "classes": {str(index): int(n) for index, n in enumerate(self._classes)},
            "unknown": {
                column: dict(sorted(counts.items(), key=lambda item: -item[1])[:UNKNOWN_VALUES])
                for column, counts in self._unknown.items()
            },
            "not_probabilities": self._bad,
            "quantiles_crossed": self._crossed,
        }
