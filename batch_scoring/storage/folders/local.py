"""Folders on a file system of this machine. `folder.py` says what belongs to one."""

import builtins
import contextlib
import errno
import os
import re
import stat
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from batch_scoring.errors import EntryError, FileChangedError, Trouble
from batch_scoring.runtime import locks
from batch_scoring.storage.folders.entries import Entry, Tree
from batch_scoring.storage.folders.folder import Children, FileVersion, Folder, inside, unreadable


class LocalFolder(Folder):
    """A local folder."""

    def __init__(self, path: str) -> None:
        """`path`: absolute, or relative to the working directory."""
        self._root = Path(path).absolute()
        self.uri = str(self._root)

    def list(self, prefix: str = "", after: str = "") -> list[FileVersion]:
        """See `Folder.list`. Links to folders are not followed, and everything but files is left out.

        Raises:
            PermissionError: a folder below cannot be listed; its contents would be missed silently.
        """
        start = self._root / inside(prefix)
        top = start if prefix.endswith("/") or not prefix else start.parent
        found = []
        for folder, below, names in os.walk(top, onerror=_raise_unless_gone):
            at = Path(folder).relative_to(self._root)
            below[:] = [name for name in below if f"{(at / name).as_posix()}/\U0010ffff" > after]
            for name in names:
                file, path = Path(folder, name), (at / name).as_posix()
                if path.startswith(prefix) and path > after:
                    with contextlib.suppress(FileNotFoundError, EntryError):  # removed since it was listed
                        found.append(_version(path, self._stat(path, file)))
        return sorted(found)

    def _stat(self, path: str, file: Path) -> os.stat_result:
        found = file.lstat()
        if stat.S_ISREG(found.st_mode):
            return found
        entry = self._tree.find(path)
        if entry.stat is None or entry.is_folder:
            raise EntryError(f"{self.uri}/{path}", Trouble("it is a folder"))
        return entry.stat

    def look(self, prefix: str = "") -> "builtins.list[FileVersion]":
        """See `Folder.look`.

        Raises:
            OSError: the folder itself cannot be accessed.
        """
        return sorted(map(_as_listed, self._tree.below(inside(prefix))))

    def children(self) -> Children:
        """See `Folder.children`."""
        names: dict[bool, list[str]] = {True: [], False: []}
        troubled = []
        for entry in self._tree.children():
            if entry.trouble:
                troubled.append(_as_listed(entry))
            else:
                names[entry.is_folder].append(entry.path)
        return Children(tuple(names[True]), tuple(names[False]), tuple(troubled))

    def version(self, path: str) -> FileVersion | None:
        """See `Folder.version`.

        Raises:
            EntryError: it is neither a file nor a folder of this one.
        """
        try:
            entry = self._tree.find(inside(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if entry.is_folder else replace(_as_listed(entry), path=path)

    def open(self, path: str, token: str | None = None) -> BinaryIO:
        """See `Folder.open`. If the file is replaced while open, this reader keeps the old content."""
        file = os.fdopen(self._tree.open(inside(path)), "rb")
        found = _version(path, os.fstat(file.fileno())).token
        if token is not None and not is_version(found, token):
            file.close()
            raise FileChangedError(f"{self.uri}/{path} has changed: version {found}, expected {token}")
        return file

    @property
    def _tree(self) -> Tree:
        return Tree(self._root)  # resolved each time: a link to the folder may change its target

    def put(self, path: str, data: bytes) -> None:
        """See `Folder.put`."""
        with self.scratch() as scratch:
            scratch.write_bytes(data)
            self.put_file(scratch, path)

    def put_if(self, path: str, data: bytes, token: str | None) -> None:
        """See `Folder.put_if`."""
        with locks.hold("put_if", f"{self.canonical}/{path}", waits=True):
            found = self.version(path)
            if (found.token if found else None) != token:
                raise FileChangedError(f"{self.uri}/{path} has changed")
            self.put(path, data)

    def remove(self, path: str) -> None:
        """See `Folder.remove`."""
        (self._root / inside(path)).unlink(missing_ok=True)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """See `Folder.scratch`. It is in this folder, so that publishing is a rename."""
        self._root.mkdir(parents=True, exist_ok=True)
        file = self._root / f".{uuid.uuid4().hex}.tmp"
        try:
            yield file
        except OSError as error:
            if error.errno == errno.ENOSPC and error.filename is None:  # the error of a write does not name the file
                raise OSError(error.errno, os.strerror(error.errno), self.uri) from error
            raise
        finally:
            file.unlink(missing_ok=True)

    def put_file(self, scratch: Path, path: str) -> int:
        """See `Folder.put_file`. Content and name survive a power cut."""
        target = self._root / inside(path)
        is_new = not target.parent.is_dir()
        target.parent.mkdir(parents=True, exist_ok=True)
        force_to_disk(scratch)
        size = scratch.stat().st_size
        scratch.replace(target)
        force_to_disk(target.parent)
        if is_new:
            force_to_disk(target.parent.parent)
        return size

    def open_arrow(self, path: str) -> pa.NativeFile:
        """See `Folder.open_arrow`."""
        return pa.OSFile(self._tree.find(inside(path)).real)

    def subfolder(self, path: str) -> Folder:
        """See `Folder.subfolder`."""
        return LocalFolder(f"{self.uri}/{inside(path)}")

    def delta_options(self) -> dict[str, str]:
        """See `Folder.delta_options`."""
        return {}

    def settle(self, paths: Sequence[str]) -> None:
        """See `Folder.settle`."""
        files = [self._root / inside(path) for path in paths]
        for file in (*files, *sorted({file.parent for file in files})):
            with contextlib.suppress(FileNotFoundError):
                force_to_disk(file)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _version(path: str, found: os.stat_result) -> FileVersion:
    modified = datetime.fromtimestamp(found.st_mtime, UTC)
    token = f"{found.st_mtime_ns:x}-{found.st_size:x}.{found.st_ino:x}.{found.st_ctime_ns:x}"
    return FileVersion(path, token, found.st_size, modified)


def _as_listed(entry: Entry) -> FileVersion:
    """Return an entry as it is listed."""
    if entry.trouble is None:
        assert entry.stat is not None, "readable entries have a status"
        return _version(entry.path, entry.stat)
    modified = datetime.fromtimestamp(entry.stat.st_mtime if entry.stat else 0, UTC)
    return unreadable(entry.path, modified, entry.trouble)


def is_version(found: str, pinned: str) -> bool:
    """Whether a file still has the pinned token.

    Until 2026-11 the token of a local file was modification time and size alone; a token pinned then is compared in
    that form.
    """
    return pinned in (found, former_token(found))


def former_token(token: str) -> str:
    """Return a token in the form that local files had until 2026-11; other tokens unchanged."""
    first, *rest = token.split(".")
    return first if len(rest) == 2 and re.fullmatch("-?[0-9a-f]+-[0-9a-f]+", first) else token


def force_to_disk(path: Path) -> None:
    """Flush a file, or the names in a folder, to stable storage."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
