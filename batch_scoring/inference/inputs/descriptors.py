"""Texts and vectors as a few numbers each, which samples and references keep in their place.

A reference of texts would be a copy of personal letters in every bundle, and a sample one in the state of every day;
vectors are a hundred times as large as what drift needs to know of them.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.inference.inputs.texts import Texts, joined
from batch_scoring.inference.inputs.vectors import Vectors
from batch_scoring.inference.manifest import TEXT_DESCRIPTORS, VECTOR_DESCRIPTORS, LoadedModel

_AT_ONCE = 1_024
"""Rows whose vectors are looked at together."""


@dataclass(frozen=True)
class Descriptors:
    """What describes the texts and vectors of a model."""

    texts: Texts | None
    vectors: Vectors | None

    @classmethod
    def of(cls, model: LoadedModel) -> "Descriptors":
        """Those of a model.

        Raises:
            UnsoundError: its tokenizer is none.
        """
        text, vectors = model.manifest.text, model.manifest.vectors
        return cls(Texts(text, model.tokenizer or b"") if text else None, Vectors(vectors) if vectors else None)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that they describe."""
        return (*(self.texts.text.columns if self.texts else ()), *(self.vectors.sizes if self.vectors else ()))

    def in_place(self, rows: pa.Table) -> pa.Table:
        """The rows with `TEXT_DESCRIPTORS` and `VECTOR_DESCRIPTORS` as float64 in place of what they describe."""
        kept = rows.drop_columns([name for name in self.columns if name in rows.column_names])
        found: dict[str, np.ndarray] = {}
        if self.texts:
            found |= zip(TEXT_DESCRIPTORS, of_texts(self.texts, rows), strict=True)
        if self.vectors:
            found |= zip(VECTOR_DESCRIPTORS, of_vectors(self.vectors, rows).T, strict=True)
        for name, values in found.items():
            kept = kept.append_column(name, pa.array(np.ascontiguousarray(values)))
        return kept


def of_texts(texts: Texts, rows: pa.Table) -> tuple[np.ndarray, ...]:
    """Characters, tokens, share of unknown tokens and whether it is empty, each float64[rows]."""
    whole = joined(rows, texts.text.columns)
    characters = pc.utf8_length(whole).to_numpy().astype(np.float64)
    is_empty = (pc.utf8_length(pc.utf8_trim_whitespace(whole)).to_numpy() == 0).astype(np.float64)
    counts, unknown = [np.empty(0)], [np.empty(0)]
    for batch in rows.select(texts.text.columns).to_batches():
        ids = texts.encode(batch)
        is_unknown = np.append(ids.values == texts.text.unknown, False).astype(np.int64)
        totals = np.add.reduceat(is_unknown, ids.offsets[:-1]) if len(ids) else np.empty(0)
        counts.append(ids.lengths.astype(np.float64))
        unknown.append(totals / ids.lengths)
    return characters, np.concatenate(counts), np.concatenate(unknown), is_empty


def of_vectors(vectors: Vectors, rows: pa.Table) -> np.ndarray:
    """float64[rows, 9]: the norm, and the projections on eight directions; NaN where a number is missing."""
    directions = np.random.default_rng(0).normal(size=(len(VECTOR_DESCRIPTORS) - 1, vectors.width))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    parts = [np.empty((0, len(VECTOR_DESCRIPTORS)))]
    for batch in rows.select([*vectors.sizes]).to_batches(max_chunksize=_AT_ONCE):
        matrix = np.zeros((batch.num_rows, vectors.width), np.float32)
        vectors.encode(batch, matrix)
        wide = matrix.astype(np.float64)
        # sums and not BLAS, which would wake its own threads
        norms = np.sqrt(np.square(wide).sum(axis=1))
        parts.append(np.column_stack([norms, *(np.multiply(wide, each).sum(axis=1) for each in directions)]))
    return np.concatenate(parts)
