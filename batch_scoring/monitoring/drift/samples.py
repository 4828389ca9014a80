"""Bounded samples of days: rows of a day's features with their scores, kept beside the day's state.

    state/dt=…/sample.parquet

A sample holds the rows with the smallest hashes of key and day: the same rows however the day was cut into shards and
batches, and other customers each day where the keys stay the same. The trailing days are read from these samples. No
table has engineered features: a sample has those that its day's model makes of these rows. Of a text it has a few
numbers that describe it.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.tables import features_table, predictions_table
from batch_scoring.inference.inputs.descriptors import Descriptors
from batch_scoring.inference.manifest import MakesFeatures
from batch_scoring.ingest import key_index
from batch_scoring.storage import parquet, shards
from batch_scoring.storage.folders.folder import Folder
from batch_scoring.storage.state import PublishedDay

WORD_CHARACTERS = 1_000
"""Of a word in a sample: longer than any word of a vocabulary, and thousands of rows may have the same."""

TRANSFORMED_ROWS = 512
"""Rows that a transform gets at once: it may raise for 100 of them."""

_FOOTER_KEY = b"batch_scoring"


@dataclass(frozen=True)
class Sample:
    """Rows of a day."""

    day: str
    rows: pa.Table
    """In the order of their hashes: any beginning of it is a sample too."""
    of: int
    """Rows that the day has."""
    model_sha256: str
    """The model of the scores; empty without scores."""
    engineered_by: str = ""
    """The model of the engineered features; empty if it has none."""


@dataclass(frozen=True)
class Engineering:
    """What makes of a row's columns what a model is compared by."""

    transform: MakesFeatures | None
    """Makes its engineered features, if it has any."""
    descriptors: Descriptors
    """Describe its texts and vectors: no sample has these themselves."""
    model_sha256: str


def take(
    pipeline: Pipeline,
    features: PublishedDay,
    predictions: PublishedDay | None,
    rows: int,
    engineering: Engineering | None = None,
) -> Sample:
    """Sample a published day: read in flat memory, at most `rows` rows kept.

    Args:
        pipeline: whose tables to read.
        features: what was published of the day's features.
        predictions: the same of its scores, if there are any. A row without scores (the model could not score it)
            stays, with nulls: it is one of the day's features all the same.
        rows: of the sample.
        engineering: of the model that the day is compared with. A row for which its transform raises stays, with nulls.
    """
    spec = pipeline.spec
    key, day = spec.input.key, features.day

    def smallest(
        folder: Folder, published_day: PublishedDay, columns: list[str], dictionary: Iterable[str] = ()
    ) -> pa.Table:
        return _smallest(_batches(folder, published_day, [key, *columns], dictionary), key, day, rows)

    with ThreadPoolExecutor(1) as beside:
        scores = None
        if predictions is not None:
            columns = sorted({column for shard in predictions.shards for column in shard.sums})
            scores = beside.submit(smallest, predictions_table(pipeline).folder, predictions, columns)
        folder = features_table(pipeline).folder
        there = shards.schema(folder, features.table.files[0]).names
        inputs = [name for name in (*spec.features.numeric, *spec.features.categorical) if name in there]
        described = engineering.descriptors.columns if engineering else ()
        transform = engineering.transform if engineering else None
        read = [*inputs, *described, *(transform.reads.names if transform else ())]
        few = [name for name in spec.features.categorical if name in there]
        chosen = smallest(folder, features, [name for name in dict.fromkeys(read) if name != key], few)
        if transform:
            chosen = _engineered(chosen, transform, [key, *inputs, *described])
        if engineering:
            chosen = engineering.descriptors.in_place(chosen)
        if scores is not None:
            chosen = chosen.join(scores.result(), key, join_type="left outer", use_threads=False)
    chosen = chosen.take(pa.array(np.argsort(_order(chosen[key].combine_chunks(), day))))
    model, maker = (predictions and predictions.model_sha256) or "", engineering.model_sha256 if engineering else ""
    return Sample(day, chosen, features.rows, model, maker)


def put(output: Folder, sample: Sample) -> None:
    """Write a day's sample; an earlier one is replaced. `output`: the pipeline's output folder."""
    described = f"{sample.of} {sample.model_sha256} {sample.engineered_by}".removesuffix(" ").encode()
    sink = pa.BufferOutputStream()
    pq.write_table(sample.rows.replace_schema_metadata({_FOOTER_KEY: described}), sink, compression="zstd")
    output.put(_path(sample.day), sink.getvalue().to_pybytes())


def get(output: Folder, day: str) -> Sample | None:
    """Read a day's sample; None if there is none that can be read."""
    try:
        content = output.read(_path(day))
    except FileNotFoundError:
        return None
    try:
        file = parquet.open_file(pa.BufferReader(content))
        of, model, *maker = file.schema_arrow.metadata[_FOOTER_KEY].decode().split(" ")
        return Sample(day, file.read(use_threads=False), int(of), model, *maker)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        return None


def before(output: Folder, days: Iterable[str]) -> list[Sample]:
    """Read the samples of some days, those that there are."""
    with ThreadPoolExecutor(16) as pool:  # on S3 a read is a round trip
        return [sample for sample in pool.map(lambda day: get(output, day), days) if sample]


def in_proportion(samples: Iterable[Sample], columns: list[str], rows: int) -> pa.Table:
    """Rows of several days, from each in proportion to its own: at most `rows`.

    A day counts as two ordinary ones at most, so that one with ten times the rows does not dominate.
    """
    known = [sample for sample in samples if sample.of and sample.rows.num_rows]
    most = 2 * float(np.median([sample.of for sample in known])) if known else 0.0
    weights = [min(sample.of, most) for sample in known]
    each = (sample.rows.num_rows / weight for sample, weight in zip(known, weights, strict=True))
    rate = min([1.0, rows / max(sum(weights), 1), *each])
    parts = [
        sample.rows.select(columns).slice(0, max(1, round(rate * weight))).replace_schema_metadata(None)
        for sample, weight in zip(known, weights, strict=True)
    ]
    return pa.concat_tables(parts, promote_options="permissive") if parts else pa.table({name: [] for name in columns})


def _engineered(rows: pa.Table, transform: MakesFeatures, kept: list[str]) -> pa.Table:
    """Some columns of the rows, and the engineered features; null where there are none."""
    parts = []
    empty = pa.RecordBatch.from_pylist([], schema=rows.schema)
    for batch in rows.combine_chunks().to_batches(max_chunksize=TRANSFORMED_ROWS) or [empty]:
        made = transform.apply(batch)
        places = np.full(batch.num_rows, -1)
        places[made.positions] = np.arange(len(made.positions))
        features = made.rows.select(transform.gives.names).take(pa.array(places, mask=places < 0))
        columns = [*batch.select(kept).columns, *features.columns]
        parts.append(pa.RecordBatch.from_arrays(columns, names=[*kept, *transform.gives.names]))
    return pa.Table.from_batches(parts)


def _batches(
    folder: Folder, published_day: PublishedDay, columns: list[str], dictionary: Iterable[str]
) -> Iterator[pa.RecordBatch]:
    for path in published_day.table.files:
        yield from shards.read(folder, path, columns, dictionary)


def _smallest(batches: Iterable[pa.RecordBatch], key: str, day: str, rows: int) -> pa.Table:
    """The rows with the smallest hashes."""
    kept: pa.Table | None = None
    hashes, bound = np.empty(0, np.uint64), np.uint64(2**64 - 1)
    for batch in batches:
        order = _order(batch.column(key), day)
        few = np.flatnonzero(order <= bound)
        if kept is not None and not len(few):
            continue
        part = pa.Table.from_batches([_decoded(batch.take(pa.array(few)))])
        kept = part if kept is None else pa.concat_tables([kept, part])
        hashes = np.concatenate([hashes, order[few]])
        if len(hashes) > rows:
            chosen = np.argpartition(hashes, rows - 1)[:rows]
            kept, hashes = kept.take(pa.array(chosen)), hashes[chosen]
            bound = hashes.max()
    assert kept is not None, "a published day has at least one file"
    return kept


def _order(key: pa.Array, day: str) -> np.ndarray:
    """uint64[rows]: seeded by the day, so that a key that occurs every day is not in every sample."""
    seed = key_index.mix64(np.array([date.fromisoformat(day).toordinal()], np.uint64))
    return key_index.mix64(key_index.hash64(key) ^ seed)


def _decoded(rows: pa.RecordBatch) -> pa.RecordBatch:
    columns = [_written_out(column) if pa.types.is_dictionary(column.type) else column for column in rows.columns]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


def _written_out(column: pa.DictionaryArray) -> pa.Array:
    """A dictionary-encoded column as text, with no word longer than `WORD_CHARACTERS`."""
    return pc.utf8_slice_codeunits(column.dictionary, 0, WORD_CHARACTERS).take(column.indices)


def _path(day: str) -> str:
    return f"state/dt={day}/sample.parquet"
