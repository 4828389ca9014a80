"""Text files: their bytes, decompressed and in blocks that end at line ends, and their rows, read block by block."""

import io
from abc import abstractmethod
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from batch_scoring.errors import UnreadableFileError
from batch_scoring.ingest.formats.rows import ALL_ROWS, FileRows, Rows

BOM = b"\xef\xbb\xbf"


class Text(io.RawIOBase):
    """The decompressed bytes of a text file. Does not close the underlying stream."""

    def __init__(self, stream: "BinaryIO | Text", *, compressed: bool) -> None:
        self._packed = Text(stream, compressed=False) if compressed else None
        self._source = pa.CompressedInputStream(self._packed, "gzip") if self._packed else stream
        self.bytes = 0
        """Decompressed bytes read so far."""

    @property
    def stored(self) -> int:
        """Stored (compressed) bytes of the file read so far."""
        return self._packed.stored if self._packed else self.bytes

    def readable(self) -> bool:
        """Always true."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes; empty at the end."""
        data: bytes = self._source.read(size)
        self.bytes += len(data)
        return data


class Blocks:
    """Text in blocks that end at a line end: a line feed, a carriage return, or both."""

    def __init__(self, text: Text, size: int, advice: str, *, line_feeds_only: bool = False) -> None:
        """Begin at the first byte.

        Args:
            text: the decompressed bytes.
            size: bytes per block, and so the maximum length of a row.
            advice: what to do about a longer row.
            line_feeds_only: whether a carriage return alone is ordinary text.
        """
        self._text, self._size, self._advice = text, size, advice
        self._last_end = _last_line_feed if line_feeds_only else _last_end
        self._rest = b""
        self._taken = 0
        self.is_last = False
        """Whether the last block taken is the end of the text."""

    def take(self) -> bytes:
        """Return the next block; empty at the end.

        Raises:
            UnreadableFileError: a row is longer than a block.
        """
        data, self._rest = self._rest, b""
        while not self.is_last:
            if len(data) > self._size:
                raise UnreadableFileError(f"a row is longer than {_readable(self._size)}: {self._advice}")
            more = self._text.read(self._size)
            if not more:
                self.is_last = True
                break
            held = data[-1:] if data.endswith(b"\r") else b""  # a line end now, whatever follows it
            data += more
            if cut := self._last_end(held + more):
                cut += len(data) - len(held) - len(more)
                data, self._rest = data[:cut], data[cut:]
                break
        self._taken += len(data)
        return data

    def give_back(self, data: bytes) -> None:
        """Return the end of the last block, so that the next block begins with it: a row continues there."""
        self._taken -= len(data)
        self._rest = data + self._rest

    def verify(self) -> None:
        """Check, at the end, that all bytes read were also parsed.

        Raises:
            UnreadableFileError: bytes were lost or duplicated.
        """
        if self._taken != self._text.bytes:
            raise UnreadableFileError(
                f"{self._text.bytes} bytes were read, {self._taken} parsed: please report this bug"
            )


class StreamedRows(FileRows):
    """The rows of a file that is read forwards, once."""

    def __init__(self, text: Text, size: int) -> None:
        """`size`: of the file, in bytes."""
        self._text, self._size = text, size
        self._numbered_rows = self._numbered()
        self._rest: Rows | None = None

    @property
    def share(self) -> float:
        """Fraction of the file that has been read."""
        return min(self._text.stored / max(self._size, 1), 1.0)

    def _read(self, start: int, stop: int) -> Iterator[Rows]:
        while rows := self._rest or next(self._numbered_rows, None):
            wanted, rest = rows.between(start, stop), rows.between(stop, ALL_ROWS)
            self._rest = rest if len(rest) else None
            if len(wanted):
                yield wanted
            if self._rest is not None:
                return

    @abstractmethod
    def _numbered(self) -> Iterator[Rows]:
        """Yield all rows with their numbers, those that cannot be parsed too."""


def _last_end(data: bytes) -> int:
    """Return where the last line with a known end ends in the data; 0 if there is none."""
    newline = data.rfind(b"\n")
    # a \r at the very end may be followed by \n
    return max(newline, data.rfind(b"\r", newline + 1, len(data) - 1)) + 1


def _last_line_feed(data: bytes) -> int:
    """Return where the last line that ends with a line feed ends in the data; 0 if there is none."""
    return data.rfind(b"\n") + 1


def _readable(size: int) -> str:
    return f"{size // 2**20} MiB" if size >= 2**20 else f"{size} bytes"
