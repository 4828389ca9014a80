"""Files of `torch.save`: a zip archive, or a series of pickles as older versions wrote them."""

import io
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.checkpoints.archives import Archive
from batch_scoring.inference.checkpoints.constructors import TypedStorage, storage_type
from batch_scoring.inference.checkpoints.inert_unpickler import MOST_BYTES, InertUnpickler
from batch_scoring.inference.checkpoints.stored import Content, Storage

if TYPE_CHECKING:
    import torch

CONTENT = "data.pkl"

_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""A number that is the first pickle in a file of the older kind."""

_COUNT = struct.Struct("<q")


def read_zip(archive: Archive) -> Content:
    """Describe an archive of `torch.save`.

    Raises:
        UnsoundError: it is damaged, or would run code.
    """
    storages: dict[str, Storage] = {}

    def persistent(identity: tuple[Any, ...]) -> TypedStorage:
        _, kind, key, _, _ = identity
        name = f"data/{_key(key)}"
        if name not in storages:
            storages[name] = archive.storage(name)
        return TypedStorage(storages[name], storage_type(kind))

    unpickler = InertUnpickler(io.BytesIO(archive.read(CONTENT, MOST_BYTES)), persistent)
    return Content(unpickler.load(), unpickler.foreign)


def is_legacy(head: bytes) -> bool:
    """Whether a file that begins like this is of the older kind."""
    return head.startswith(b"\x80") and _MAGIC in head


def read_legacy(file: BinaryIO) -> Content:
    """Describe a file of `torch.save` before 1.6, or one with `_use_new_zipfile_serialization=False`.

    Raises:
        UnsoundError: it is damaged, or would run code.
    """
    return _Legacy(file).read()


class _Legacy:
    """Pickles of the magic number, the version, the machine, the content and the storages' keys; then the storages."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, file.seek(0, 2)
        file.seek(0)
        self._unpickler = InertUnpickler(file, self._persistent)
        self._stored: dict[str, tuple[int, TypedStorage]] = {}
        self._places: dict[str, int] = {}

    def read(self) -> Content:
        """Read all but the storages, whose places are remembered."""
        for _ in range(2):
            self._unpickler.load()
        machine = self._unpickler.load()
        if isinstance(machine, dict) and machine.get("little_endian") is False:
            raise UnsoundError("its numbers are big-endian; save it again on a little-endian machine")
        value = self._unpickler.load()
        keys = self._unpickler.load()
        for key in keys if isinstance(keys, list) else ():
            self._place(_key(key))
        if missing := self._stored.keys() - self._places.keys():
            raise UnsoundError(f"it has no storage {min(missing)}; expected a whole file of torch.save")
        return Content(value, self._unpickler.foreign)

    def _persistent(self, identity: tuple[Any, ...]) -> object:
        if identity[0] == "module":  # of a module that was saved as a whole: its class and source
            return identity[1]
        _, kind, key, _, count, view = identity
        dtype, key = storage_type(kind), _key(key)
        if key not in self._stored:
            whole = Storage(_size(count, dtype), lambda: self._load(key))
            self._stored[key] = count, TypedStorage(whole, dtype)
        found = self._stored[key][1].storage
        if view is not None:
            _, offset, items = view
            found = found.part(_size(offset, dtype), _size(items, dtype))
        return TypedStorage(found, dtype)

    def _place(self, key: str) -> None:
        """Remember where the next storage is, and go to the one after it."""
        count, found = self._stored[key]
        counted = _COUNT.unpack(self._file.read(_COUNT.size))
        start = self._file.tell()
        if counted != (count,) or start + found.storage.size > self._size:
            raise UnsoundError(f"the storage {key} is cut off or damaged; expected a whole file of torch.save")
        self._places[key] = start
        self._file.seek(start + found.storage.size)

    def _load(self, key: str) -> bytes:
        self._file.seek(self._places[key])
        return self._file.read(self._stored[key][1].storage.size)


def _size(items: object, dtype: "torch.dtype") -> int:
    """Of some items, in bytes."""
    if type(items) is not int or not 0 <= items < 2**48:
        raise UnsoundError("a storage whose size is not a number of numbers")
    return items * dtype.itemsize


def _key(value: object) -> str:
    if not isinstance(value, str) or len(value) > 100:
        raise UnsoundError("a storage without a name")
    return value
