"""Bytes of a CSV file: decompressed, and split into blocks at line ends."""

import io
from typing import BinaryIO

import pyarrow as pa

from batch_scoring.errors import UnreadableFileError


class Text(io.RawIOBase):
    """The decompressed bytes of a CSV file. Does not close the underlying stream."""

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

    def __init__(self, text: Text, size: int) -> None:
        """`size`: bytes per block, and so the maximum length of a row."""
        self._text, self._size = text, size
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
                raise UnreadableFileError(_too_long(self._size))
            more = self._text.read(self._size)
            if not more:
                self.is_last = True
                break
            held = data[-1:] if data.endswith(b"\r") else b""  # a line end now, whatever follows it
            data += more
            if cut := _last_end(held + more):
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


def _last_end(data: bytes) -> int:
    """Return where the last line with a known end ends in the data; 0 if there is none."""
    newline = data.rfind(b"\n")
    # a \r at the very end may be followed by \n
    return max(newline, data.rfind(b"\r", newline + 1, len(data) - 1)) + 1


def _too_long(size: int) -> str:
    limit = f"{size // 2**20} MiB" if size >= 2**20 else f"{size} bytes"
    return f"a row is longer than {limit}: a quote may be left open; close it and upload the file again"
