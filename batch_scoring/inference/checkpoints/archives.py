"""Zip archives as torch writes them: nothing compressed, every record once, all checksums verified.

So what is read is never larger than the file, and a flipped bit in a weight is found (torch itself ignores the
checksums).
"""

import zipfile
from typing import BinaryIO

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.checkpoints.stored import Storage

MAGIC = b"PK\x03\x04"


class Archive:
    """An open archive. Its records lie in one folder, whose name does not matter."""

    def __init__(self, file: BinaryIO) -> None:
        """`file`: has to stay open as long as records are read."""
        self._zip = zipfile.ZipFile(file)
        records = self._zip.infolist()
        if not records or min(record.header_offset for record in records):
            raise UnsoundError("it is truncated: the last complete archive in it is one within the file")
        self._records = {record.filename.partition("/")[2] or record.filename: record for record in records}
        self._is_repeated = len(self._records) < len(records)
        size = sum(record.file_size for record in records)
        is_stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
        self._is_inflated = not is_stored or size > file.seek(0, 2)

    def __contains__(self, name: str) -> bool:
        return name in self._records

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all records, without the archive's own folder."""
        return tuple(self._records)

    def check(self) -> None:
        """Check that reading all records takes no more than the file's size.

        Raises:
            UnsoundError: records are compressed, overlap or occur twice, or numbers are big-endian.
        """
        if self._is_inflated:
            raise UnsoundError("its records are compressed or overlap, which torch.save never does")
        if self._is_repeated:
            raise UnsoundError("two of its records have the same name")
        if "byteorder" in self and self.read("byteorder") != b"little":
            raise UnsoundError("its numbers are big-endian; save it again on a little-endian machine")

    def read(self, name: str, most: int | None = None) -> bytes:
        """Read a record.

        Raises:
            UnsoundError: it does not exist, is longer than `most`, or its checksum is another.
        """
        if name not in self:
            raise UnsoundError(f"it has no record {name}")
        if most is not None and (size := self._records[name].file_size) > most:
            raise UnsoundError(f"its record {name} has {size:,} bytes; expected at most {most:,}")
        try:
            return self._zip.read(self._records[name])
        except zipfile.BadZipFile as error:
            raise UnsoundError(f"the record {name} is damaged ({error})") from error

    def storage(self, name: str) -> Storage:
        """The storage in a record."""
        if name not in self:
            raise UnsoundError(f"it has no record {name}")
        return Storage(self._records[name].file_size, lambda: self.read(name))
