"""Texts as a few numbers each, which samples and references keep in their place.

A reference of texts would be a copy of personal letters in every bundle, and a sample one in the state of every day.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.inference.inputs.texts import Texts, joined
from batch_scoring.inference.manifest import TEXT_DESCRIPTORS


def without_texts(texts: Texts, rows: pa.Table) -> pa.Table:
    """The rows with `TEXT_DESCRIPTORS` as float64 in place of their text columns."""
    kept = rows.drop_columns([name for name in texts.text.columns if name in rows.column_names])
    for name, values in zip(TEXT_DESCRIPTORS, describe(texts, rows), strict=True):
        kept = kept.append_column(name, pa.array(values))
    return kept


def describe(texts: Texts, rows: pa.Table) -> tuple[np.ndarray, ...]:
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
