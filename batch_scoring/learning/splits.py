"""Parts of a sample: the rows that are held out, and those that a bundle keeps."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.errors import UnsoundError
from batch_scoring.ingest.samples import DAY, SampleRows


def is_by_day(found: pa.Table, every: int) -> bool:
    """Whether whole days are held out, and not rows."""
    return DAY in found.column_names and len(pc.unique(found[DAY])) >= every


def held_out_rows(found: SampleRows, every: int | None) -> np.ndarray:
    """bool[rows]: which rows are held out."""
    if every is None:
        return np.zeros(found.accepted.num_rows, bool)
    if every < 2:
        raise UnsoundError(f"held_out is {every}; expected 2 or more: every so many-th day is held out")
    number = np.arange(found.accepted.num_rows)
    if is_by_day(found.others, every):
        _, number = np.unique(found.others[DAY].to_numpy(), return_inverse=True)
    held = np.asarray(number % every == every - 1)
    if not held.any():
        raise UnsoundError(f"held_out is {every}, and the sample has {len(held)} rows: expected fewer")
    return held


def only(found: SampleRows, mask: np.ndarray) -> SampleRows:
    """Some of the accepted rows."""
    chosen = pa.array(mask)
    return replace(
        found,
        accepted=found.accepted.filter(chosen),
        others=found.others.filter(chosen),
        places=found.places.filter(chosen),
    )


def spread(rows: pa.Table, most: int) -> np.ndarray:
    """At most so many positions, ascending, spread over the days in proportion; always the same ones."""
    if rows.num_rows <= most:
        return np.arange(rows.num_rows)
    order = np.random.default_rng(0).permutation(rows.num_rows)
    if DAY in rows.column_names:
        order = order[np.argsort(rows[DAY].to_numpy()[order], kind="stable")]
    return np.sort(order[np.linspace(0, len(order), most, endpoint=False).astype(np.int64)])
