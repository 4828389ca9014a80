"""The benchmarks' table: an id, six numbers with gaps, two categories; always the same bytes.

Each chunk of rows is generated from its own number, so tables of any size need constant memory, and smaller tables are
the beginning of larger ones. `networks.py` defines the networks that score it, `peers.py` the contenders.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

CHUNK = 131_072
"""Rows generated at a time; each chunk is a row group of a Parquet file."""

KEY = "id"
NUMERIC = {
    "age": pa.int64(),
    "visits": pa.int64(),
    "tenure_days": pa.int32(),
    "income": pa.float64(),
    "basket": pa.float64(),
    "discount": pa.float32(),
}
MEANS = (45.0, 3.0, 1_500.0, 60_000.0, 50.0, 0.2)
SCALES = (15.0, 1.7, 900.0, 25_000.0, 30.0, 0.1)
"""Statistics of the numeric columns, for the networks' normalisation."""

CATEGORICAL = {
    "segment": tuple(f"segment {index:02d}" for index in range(16)),
    "region": tuple(f"region {index:03d}" for index in range(300)),
}
SCHEMA = pa.schema([(KEY, pa.string()), *NUMERIC.items(), *((name, pa.string()) for name in CATEGORICAL)])

GAPS = {"income": 0.05, "tenure_days": 0.01, "region": 0.002}
"""Fraction of values that are missing."""


def chunks(rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the first rows of the table, `CHUNK` at a time."""
    for number in range(-(-rows // CHUNK)):
        yield _chunk(number).slice(0, rows - number * CHUNK)


def table(rows: int) -> pa.Table:
    """Return the first rows of the table at once, for small numbers of rows."""
    return pa.Table.from_batches(chunks(rows), SCHEMA)


def write(rows: int, target: Path) -> None:
    """Write the first rows of the table as a Parquet or CSV file, depending on the file extension."""
    partial = target.with_name(f"{target.name}.partial")
    writer = (
        pq.ParquetWriter(partial, SCHEMA, compression="zstd", use_dictionary=list(CATEGORICAL))
        if target.suffix == ".parquet"
        else pyarrow.csv.CSVWriter(partial, SCHEMA, write_options=pyarrow.csv.WriteOptions(quoting_style="needed"))
    )
    with contextlib.closing(writer):
        for chunk in chunks(rows):
            writer.write_batch(chunk)
    partial.rename(target)


def positions(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """int64: the positions of rows in the table, from 0, by their ids."""
    return pc.cast(pc.utf8_slice_codeunits(pc.cast(ids, pa.string()), 1), pa.int64()).to_numpy()


def _chunk(number: int) -> pa.RecordBatch:
    random = np.random.default_rng((20_240_101, number))
    places = np.arange(number * CHUNK, (number + 1) * CHUNK)
    numbers = {
        "age": random.integers(18, 90, CHUNK),
        "visits": random.poisson(3.0, CHUNK),
        "tenure_days": random.integers(0, 3_000, CHUNK, dtype=np.int32),
        "income": np.round(random.lognormal(10.9, 0.4, CHUNK), 2),
        "basket": np.round(random.gamma(2.5, 20.0, CHUNK), 2),
        "discount": np.round(random.beta(2.0, 8.0, CHUNK), 3).astype(np.float32),
    }
    columns = [pc.binary_join_element_wise("c", pc.utf8_lpad(pc.cast(pa.array(places), pa.string()), 10, "0"), "")]
    for name, values in numbers.items():
        columns.append(pa.array(values, NUMERIC[name], mask=_gaps(name, random)))
    for name, words in CATEGORICAL.items():
        codes = np.minimum(random.exponential(len(words) / 4, CHUNK).astype(np.int32), len(words) - 1)
        encoded = pa.DictionaryArray.from_arrays(pa.array(codes, mask=_gaps(name, random)), pa.array(words))
        columns.append(encoded.cast(pa.string()))
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _gaps(name: str, random: np.random.Generator) -> np.ndarray | None:
    return random.random(CHUNK) < GAPS[name] if name in GAPS else None
