"""What an export writes to Redis: the names of its keys, and their values as JSON.

Rows with equal keys may be anywhere in the stream. They are gathered in a bounded amount of memory: rows are dealt to
temporary files by the hash of their key, so each file holds all rows of its keys, in their order, and is small enough
to be grouped in memory. The files have no name, so nothing stays behind when the process is killed.
"""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.config.delivery_spec import RedisExport
from batch_scoring.errors import SinkRefusedError
from batch_scoring.ingest.key_index import hash64
from batch_scoring.storage.json_text import joined, json_text

_PARTS = 32
"""Temporary files; one of ten million rows holds 300,000."""

_IN_MEMORY = 2**20
"""Bytes of each that are kept in memory; a small export writes no file."""

_AT_ONCE = 8192
"""Keys that are made into text at a time."""


class Entries(NamedTuple):
    """Some keys with their values."""

    names: pa.Array
    """Text; none is null."""
    values: pa.Array
    """JSON text."""


def entries(batches: Iterable[pa.RecordBatch], export: RedisExport) -> Iterator[Entries]:
    """The keys of an export. With `form: list` each key comes once; with `single`, as often as rows have it.

    Raises:
        SinkRefusedError: a row has no key, or its type does not name keys.
    """
    rows = (_pair(batch, export) for batch in batches)
    if export.form == "single":
        for pair in rows:
            for start in range(0, len(pair), _AT_ONCE):
                part = pair.slice(start, _AT_ONCE)
                yield Entries(_text(part["key"]), json_text(part["value"]))
        return
    for group in _grouped(rows):
        for start in range(0, len(group.keys), _AT_ONCE):
            yield group.entries(start, min(start + _AT_ONCE, len(group.keys)))


def why_not_a_key(column: pa.DataType) -> str:
    """Why values of a type do not name keys; empty if they do."""
    fits = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_date, pa.types.is_boolean)
    if any(of_type(column) for of_type in fits):
        return ""
    return f"is {column}, but keys are named by integers, text, dates or booleans; name another column"


def _pair(batch: pa.RecordBatch, export: RedisExport) -> pa.RecordBatch:
    """The two columns of an export."""
    keys = batch.column(export.key)
    if why := why_not_a_key(keys.type):
        raise SinkRefusedError(f"column {export.key} {why}")
    if keys.null_count:
        raise SinkRefusedError(
            f"{keys.null_count} rows have no {export.key}, which names their keys in Redis; leave such rows out with "
            f"where: {export.key} is not None"
        )
    return pa.record_batch([keys, batch.column(export.value)], names=["key", "value"])


def _text(keys: pa.Array) -> pa.Array:
    return keys.cast(pa.large_string())


@dataclass(frozen=True)
class _Group:
    """Keys, and the values of each beside each other."""

    keys: pa.Array
    ends: np.ndarray
    """int64[keys + 1]: where the values of each key begin, and where the last ones end."""
    values: pa.Array

    def entries(self, start: int, stop: int) -> Entries:
        """Some of the keys, each with a JSON list."""
        first, last = int(self.ends[start]), int(self.ends[stop])
        texts = json_text(self.values.slice(first, last - first))
        lists = pa.LargeListArray.from_arrays(pa.array(self.ends[start : stop + 1] - first), texts)
        lists = pc.binary_join(lists, pa.scalar(",", pa.large_string()))
        return Entries(_text(self.keys.slice(start, stop - start)), joined("[", lists, "]"))


def _grouped(rows: Iterable[pa.RecordBatch]) -> Iterator[_Group]:
    """Gather rows with equal keys, in their order."""
    with contextlib.ExitStack() as stack:
        files: list[IO[bytes]] = [stack.enter_context(tempfile.SpooledTemporaryFile(_IN_MEMORY)) for _ in range(_PARTS)]
        writers: list[pa.ipc.RecordBatchStreamWriter] = []
        for pair in rows:
            writers = writers or [pa.ipc.new_stream(file, pair.schema) for file in files]
            for number, part in _dealt(pair):
                writers[number].write_batch(part)
        for writer, file in zip(writers, files if writers else (), strict=True):
            writer.close()
            file.seek(0)
            yield _group(pa.ipc.open_stream(file).read_all().combine_chunks())
            file.truncate(0)


def _dealt(pair: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The temporary files that rows belong to, with these rows."""
    keys = pair["key"]
    hashes = hash64(keys if pa.types.is_integer(keys.type) else _text(keys))
    numbers = (hashes >> np.uint64(32)).astype(np.uint16) % np.uint16(_PARTS)
    ordered = pair.take(pa.array(np.argsort(numbers, kind="stable")))
    counts = np.bincount(numbers, minlength=_PARTS)
    ends = np.cumsum(counts)
    for number in np.flatnonzero(counts).tolist():
        yield number, ordered.slice(ends[number] - counts[number], counts[number])


def _group(rows: pa.Table) -> _Group:
    encoded = _whole(rows["key"]).dictionary_encode()
    places = encoded.indices.to_numpy()
    counts = np.bincount(places, minlength=len(encoded.dictionary))
    ordered = _whole(rows["value"]).take(pa.array(np.argsort(places, kind="stable")))
    return _Group(encoded.dictionary, np.concatenate(([0], np.cumsum(counts))), ordered)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)
