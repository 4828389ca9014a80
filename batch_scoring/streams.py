"""A CSV file's bytes as Arrow reads them: twice from the start, once for the header and once for the rows."""

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

_TAIL = 64
"""Bytes kept of a file's end."""


class Twice:
    """A stream that is read twice from its start, without asking the store again for what it gave the first time.

    Arrow goes on reading in a thread of its own when nobody wants more: the first reader is cut off by the second.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._lock = stream, threading.Lock()
        self._seen: list[bytes] = []
        self._last: Reader | None = None

    def reader(self) -> "Reader":
        """The stream from its start; no reader before this one gets another byte."""
        with self._lock:
            waiting, self._seen = self._seen, []
            self._last = Reader(self._read, is_first=self._last is None, waiting=waiting[::-1])
            return self._last

    def _read(self, reader: "Reader", size: int) -> bytes:
        with self._lock:
            if reader is not self._last:
                return b""
            if reader.waiting:
                data = reader.waiting.pop()
                if 0 <= size < len(data):
                    reader.waiting.append(data[size:])
                    data = data[:size]
                return data
            data = self._stream.read(size)
            if reader.is_first:
                self._seen.append(data)
            return data


@dataclass(frozen=True, eq=False)
class Reader:
    """One way through a stream."""

    ask: Callable[["Reader", int], bytes]
    is_first: bool
    waiting: list[bytes]
    """What has been read before, the next piece last."""

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; none at the end."""
        return self.ask(self, size)


class Text(io.RawIOBase):
    """A CSV file's bytes, uncompressed, for Arrow to read. Remembers the last ones; closes nothing.

    Arrow closes a stream as soon as it has no more use for it, also after a first look at the header.
    """

    def __init__(self, stream: "Reader | Text", *, compressed: bool) -> None:
        self._packed = Text(stream, compressed=False) if compressed else None
        self._source = pa.CompressedInputStream(self._packed, "gzip") if self._packed else stream
        self._bytes = 0
        self.end = b""

    @property
    def stored(self) -> int:
        """Bytes of the file that have been read, as they are stored."""
        return self._packed.stored if self._packed else self._bytes

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; none at the end."""
        data: bytes = self._source.read(size)
        self._bytes += len(data)
        self.end = (self.end + data if len(data) < _TAIL else data)[-_TAIL:]
        return data
