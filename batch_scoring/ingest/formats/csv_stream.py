"""A CSV file's bytes: uncompressed, and cut where lines end."""

import io
from typing import BinaryIO

import pyarrow as pa

from batch_scoring.errors import UnreadableFileError


class Text(io.RawIOBase):
    """A CSV file's bytes, uncompressed. Closes nothing."""

    def __init__(self, stream: "BinaryIO | Text", *, compressed: bool) -> None:
        self._packed = Text(stream, compressed=False) if compressed else None
        self._source = pa.CompressedInputStream(self._packed, "gzip") if self._packed else stream
        self.bytes = 0
        """That have been read, uncompressed."""

    @property
    def stored(self) -> int:
        """Bytes of the file that have been read, as they are stored."""
        return self._packed.stored if self._packed else self.bytes

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; none at the end."""
        data: bytes = self._source.read(size)
        self.bytes += len(data)
        return data


class Blocks:
    """Text in blocks that end where a line ends: at a line feed, a carriage return or both."""

    def __init__(self, text: Text, size: int) -> None:
        """`size`: of a block, in bytes, and of the longest row."""
        self._text, self._size = text, size
        self._rest = b""
        self._taken = 0
        self.is_last = False
        """Whether the block that was taken last ends the text."""

    def take(self) -> bytes:
        """The next block; none at the end.

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
            data += more
            if cut := _last_end(more):
                cut += len(data) - len(more)
                data, self._rest = data[:cut], data[cut:]
                break
        self._taken += len(data)
        return data

    def give_back(self, data: bytes) -> None:
        """Take the end of the last block back: a row goes on in the next one."""
        self._taken -= len(data)
        self._rest = data + self._rest

    def verify(self) -> None:
        """Hold what was handed out against what was read, once all has been.

        Raises:
            UnreadableFileError: bytes are lost or doubled.
        """
        if self._taken != self._text.bytes:
            raise UnreadableFileError(f"{self._text.bytes} bytes were read and {self._taken} parsed: report this")


def _last_end(data: bytes) -> int:
    """Where the last line ends that is known to end in the data; 0 if none does."""
    newline = data.rfind(b"\n")
    # after a \r at the very end a \n may follow
    return max(newline, data.rfind(b"\r", newline + 1, len(data) - 1)) + 1


def _too_long(size: int) -> str:
    limit = f"{size // 2**20} MiB" if size >= 2**20 else f"{size} bytes"
    return f"a row is longer than {limit}: there may be a quote that nothing closes; close it and upload the file again"
