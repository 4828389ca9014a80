"""A folder, local or an s3:// prefix, behind the same few operations.

A folder lists files with version tokens, opens one version of a file, and writes files so that a reader sees either the
old bytes or the new ones. Nothing here depends on pipelines, days or tables.

The following belongs to a local folder, whatever is read (landing files, markers, manifests, bundles, state):

- Its address may be a link, or contain links: the target is the folder.
- Below it: its regular files and its folders, recursively.
- Links below it that lead, directly or through other links, to one of these: `a.csv -> ..data/a.csv`. A linked folder
  is listed too, unless it is above the link or the link itself is in a linked folder.

Everything else cannot be read and is never opened: a link that leads out of the folder, to nothing or back to itself; a
FIFO, a socket, a device; a name that is not UTF-8 or contains a backslash; anything for which the operating system
reports an error. `look` lists such entries with the reason, so that callers can report what they leave out and continue
with the rest; opening one raises `EntryError`. `list` is for folders in which only our own files matter.
"""

import builtins
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pyarrow as pa

from batch_scoring.errors import OutsideFolderError, Trouble
from batch_scoring.storage.folders.entries import readable_name, why_not_a_name


@dataclass(frozen=True, order=True)
class FileVersion:
    """One version of a file, as listed."""

    path: str
    """Relative to the folder, with forward slashes."""
    token: str
    """Changes whenever the content does: on S3 the ETag; on disk modification time, size, inode and change time."""
    size: int
    """Bytes."""
    modified: datetime
    """UTC."""
    trouble: Trouble | None = field(default=None, compare=False)
    """Why the file cannot be read, if so: token and size are then meaningless."""


@dataclass(frozen=True)
class Children:
    """The entries directly in a folder."""

    folders: tuple[str, ...]
    """Names, sorted."""
    files: tuple[str, ...]
    troubled: tuple[FileVersion, ...] = ()
    """Entries that are neither, with the reason."""


class Folder(ABC):
    """A place for files. Every path is relative to it, with forward slashes, and cannot lead out of it."""

    uri: str
    """Absolute path or s3:// address, without a trailing slash."""

    @abstractmethod
    def list(self, prefix: str = "", after: str = "") -> list[FileVersion]:
        """List all files whose path begins with `prefix` and comes after `after`, by path; empty if there are none."""

    def look(self, prefix: str = "") -> "builtins.list[FileVersion]":
        """List a folder that others write to: like `list`, plus unreadable entries and the files of linked folders."""
        return [_with_name_checked(file) for file in self.list(prefix)]

    @abstractmethod
    def children(self) -> Children:
        """Return the names directly in this folder, not recursively; empty if it does not exist."""

    def version(self, path: str) -> FileVersion | None:
        """Return the current version of a file; None if it does not exist."""
        return next((file for file in self.list(path) if file.path == path), None)

    @abstractmethod
    def open(self, path: str, token: str | None = None) -> BinaryIO:
        """Open a file for reading at any position.

        Raises:
            FileNotFoundError: the file does not exist.
            FileChangedError: its version is not `token`, now or (on S3) at any later read.
            EntryError: it is not a file of this folder.
        """

    @abstractmethod
    def put(self, path: str, data: bytes) -> None:
        """Write a small file atomically, replacing any file of that name."""

    @abstractmethod
    def put_if(self, path: str, data: bytes, token: str | None) -> None:
        """Write a small file atomically, if the current version is `token`; None: if it does not exist.

        On a disk this holds among the processes of one user on one machine. On S3 a token is a digest of the content:
        it cannot tell two versions with equal content apart, so let each version differ.

        Raises:
            FileChangedError: it is not; the file is left as it is. On S3 the write may have succeeded all the same, if
                its answer was lost and the request repeated.
        """

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file; do nothing if it does not exist."""

    @abstractmethod
    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """Provide a local file for writing a large file before `put_file`; removed at the end if it still exists."""

    @abstractmethod
    def put_file(self, scratch: Path, path: str) -> int:
        """Publish the finished scratch file under a new name, atomically. Return its size in bytes."""

    @abstractmethod
    def open_arrow(self, path: str) -> pa.NativeFile:
        """Open a file for Arrow's readers, with random access; on a local disk without going through Python."""

    @abstractmethod
    def delta_options(self) -> dict[str, str]:
        """Return the `storage_options` with which deltalake accesses this folder."""

    @abstractmethod
    def settle(self, paths: Sequence[str]) -> None:
        """Force existing files that other libraries wrote to stable storage."""

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a file system of this machine."""
        return not self.uri.startswith("s3://")

    @property
    def canonical(self) -> str:
        """The address of this folder with all links resolved."""
        return str(Path(self.uri).resolve()) if self.is_local else self.uri

    def read(self, path: str, token: str | None = None) -> bytes:
        """Read a whole file: if it is being replaced, either the old bytes or the new ones.

        Args:
            path: relative to the folder.
            token: version to read; any if None.

        Raises:
            FileNotFoundError: the file does not exist.
            FileChangedError: the file is no longer this version.
            EntryError: it is not a file of this folder.
        """
        with self.open(path, token) as file:
            return file.read()

    def read_each(self, paths: Sequence[str]) -> "builtins.list[bytes | None]":
        """Read several small files, in the given order; None for a file that does not exist."""
        return [self._read_if_there(path) for path in paths]

    def _read_if_there(self, path: str) -> bytes | None:
        try:
            return self.read(path)
        except FileNotFoundError:
            return None

    @abstractmethod
    def subfolder(self, path: str) -> "Folder":
        """Return a folder below this one."""


def inside(path: str) -> str:
    """Return `path` if it stays below the folder to which it is relative.

    Raises:
        OutsideFolderError: it is absolute or contains `..`.
    """
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\\" in path:
        raise OutsideFolderError(f"{path!r} leads out of its folder; expected a relative path without '..'")
    return path


def _with_name_checked(file: FileVersion) -> FileVersion:
    reason = why_not_a_name(file.path)
    return unreadable(readable_name(file.path), file.modified, Trouble(reason)) if reason else file


def unreadable(path: str, modified: datetime, trouble: Trouble) -> FileVersion:
    """An entry that cannot be read, as it is listed."""
    return FileVersion(path, "in trouble", 0, modified, trouble)
