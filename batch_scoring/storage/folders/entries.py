"""Entries of a local folder: files, folders, and everything else, with the reason why it cannot be read.

`folder.py` states the rules. A file is opened from the folder down, one name at a time and without following links, so
that concurrent changes cannot lead elsewhere; anything but a regular file is closed before a byte is read.
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from batch_scoring.errors import EntryError, FileChangedError, Trouble

_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_GONE = (FileNotFoundError, NotADirectoryError)
_FOLDER_ONLY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_ONLY = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Entry:
    """A file, a folder, or an entry that cannot be read."""

    path: str
    """Relative to the folder; in printable form if the entry cannot be read."""
    real: str = ""
    """The absolute path without links; empty if the entry cannot be read."""
    stat: os.stat_result | None = None
    """Of the target of a link; if the entry cannot be read, its own, or None if not available."""
    is_linked: bool = False
    """Whether the path leads through a link to a folder."""
    trouble: Trouble | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder that may be listed."""
        return self.trouble is None and self.stat is not None and stat.S_ISDIR(self.stat.st_mode)


def readable_name(name: str) -> str:
    r"""Return a name in printable form: bytes that are not UTF-8 as `\xe9`, control characters as `\n`."""
    return "".join(char if char.isprintable() else _escaped(char) for char in name)


def _escaped(char: str) -> str:
    byte = ord(char) - 0xDC00  # as Python decodes names of files
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else char.encode("unicode_escape").decode()


def why_not_a_name(path: str) -> str:
    """Return why no file with this name can be read, whatever its content; empty if one can."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8: rename it"
    if "\\" in path:
        return "its name has a backslash, which separates folders elsewhere: rename it"
    return "its name has '..', which leads out of its folder: rename it" if ".." in path.split("/") else ""


class Tree:
    """A local folder with everything below it."""

    def __init__(self, folder: Path) -> None:
        """`folder`: absolute; may be a link itself."""
        self._shown, self._real = str(folder), os.path.realpath(folder)

    @property
    def top(self) -> Entry:
        """The folder itself.

        Raises:
            FileNotFoundError, NotADirectoryError: it does not exist.
            OSError: it cannot be accessed.
        """
        return Entry("", self._real, Path(self._real).stat())

    def children(self) -> Iterator[Entry]:
        """Yield the entries directly in the folder, by name.

        Raises:
            OSError: it cannot be listed.
        """
        try:
            names = sorted(_names(self._real))
        except _GONE:
            return
        yield from filter(None, (self._look(self.top, name) for name in names))

    def below(self, prefix: str) -> Iterator[Entry]:
        """Yield all files whose path begins with `prefix`, and unreadable entries there, recursively.

        Raises:
            OSError: the folder itself cannot be accessed.
        """
        *above, start = prefix.split("/")
        try:
            place: Entry | None = self.top
        except _GONE:
            return
        for name in above:
            place = self._look(place, name) if place and place.is_folder else None
        if place and place.is_folder:
            yield from self._walk(place, start)
        elif place and place.trouble:
            yield place

    def find(self, path: str) -> Entry:
        """Return the file or folder at a path.

        Raises:
            FileNotFoundError, NotADirectoryError: it does not exist.
            EntryError: it may not be read.
            OSError: it cannot be accessed.
        """
        shown = f"{self._shown}/{path}"
        try:
            place = self.top
            for name in PurePosixPath(path).parts:
                if not place.is_folder:
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), shown)
                place = self._found(place, name)
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), shown) from error
        return place

    def open(self, path: str) -> int:
        """Open the file at a path: always a regular file within this folder, despite concurrent changes.

        Raises:
            FileChangedError: it has just been replaced by a link or something else.
            FileNotFoundError, NotADirectoryError, EntryError, OSError: see `find`.
        """
        entry = self.find(path)
        if entry.is_folder:
            raise self._error(path, "it is a folder; expected a file")
        try:
            descriptor = _open_below(self._real, Path(entry.real).relative_to(self._real).parts)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                raise FileChangedError(f"{self._shown}/{path} was replaced while it was opened") from error
            raise OSError(error.errno, error.strerror, f"{self._shown}/{path}") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileChangedError(f"{self._shown}/{path} was replaced while it was opened")
        return descriptor

    def _walk(self, place: Entry, start: str) -> Iterator[Entry]:
        """Yield files and unreadable entries in and below a folder; directly in it, those that begin with `start`."""
        pending = [place]
        while pending:
            folder = pending.pop()
            try:
                names = _names(folder.real)
            except _GONE:
                continue
            except OSError as error:
                yield Entry(readable_name(folder.path), stat=folder.stat, trouble=_of_disk(error))
                continue
            for name in names:
                entry = self._look(folder, name) if folder is not place or name.startswith(start) else None
                if entry and entry.is_folder:
                    pending.append(entry)
                elif entry:
                    yield entry

    def _look(self, folder: Entry, name: str) -> Entry | None:
        """Return an entry of a folder, readable or not; None if it has disappeared since it was listed."""
        path, own = _joined(folder.path, name), f"{folder.real}/{name}"
        try:
            return self._found(folder, name)
        except _GONE:
            return None
        except EntryError as error:
            trouble = error.trouble
        except FileChangedError:
            trouble = Trouble("it was replaced while it was being read", may_pass=True)
        except OSError as error:
            trouble = _of_disk(error)
        try:
            return Entry(readable_name(path), stat=os.lstat(own), trouble=trouble)
        except _GONE:
            return None
        except OSError:
            return Entry(readable_name(path), trouble=trouble)

    def _found(self, folder: Entry, name: str) -> Entry:
        path, real, is_linked = _joined(folder.path, name), f"{folder.real}/{name}", folder.is_linked
        if reason := why_not_a_name(name):
            raise self._error(path, reason)
        found = os.lstat(real)
        if stat.S_ISLNK(found.st_mode):
            real, found = self._followed(path, real)
            if stat.S_ISDIR(found.st_mode):
                self._check_linked_folder(path, folder, real)
                is_linked = True
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            kind = next((words for is_kind, words in _KINDS if is_kind(found.st_mode)), "neither file nor folder")
            raise self._error(path, f"it is {kind}; expected a file: remove it")
        return Entry(path, real, found, is_linked)

    def _followed(self, path: str, link: str) -> tuple[str, os.stat_result]:
        """Return the real path of a link's target, and its status."""
        said = f"it is a link to '{readable_name(str(Path(link).readlink()))}'"
        if not _is_within(os.path.realpath(link), self._real):
            raise self._error(path, f"{said}, which leads out of {self._shown}: replace it with its target")
        try:
            found = Path(link).stat()  # by its name alone, `gone/../a.csv` would be a.csv
            real = os.path.realpath(link, strict=True)
        except _GONE:
            raise self._error(path, f"{said}, which does not exist: restore the target, or remove the link") from None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise self._error(path, f"{said}, which leads back to itself: remove it") from error
        if not _is_within(real, self._real) or not os.path.samestat(found, os.lstat(real)):
            raise FileChangedError(f"{self._shown}/{path} was replaced while it was being read")
        return real, found

    def _check_linked_folder(self, path: str, folder: Entry, real: str) -> None:
        """Reject a link to a folder that leads in a circle, or would multiply what is below it at every level."""
        if _is_within(folder.real, real):
            raise self._error(path, "it is a link to a folder above it: remove it")
        if folder.is_linked:
            raise self._error(path, "it is a linked folder within a linked folder: replace it with its target")

    def _error(self, path: str, reason: str) -> EntryError:
        return EntryError(f"{self._shown}/{readable_name(path)}", Trouble(reason))


def _open_below(folder: str, parts: tuple[str, ...]) -> int:
    """Open a file one name at a time, so that no name on the way can be a link."""
    *above, name = parts
    place = os.open(folder, _FOLDER_ONLY)
    try:
        for part in above:
            above_it, place = place, os.open(part, _FOLDER_ONLY, dir_fd=place)
            os.close(above_it)
        return os.open(name, _FILE_ONLY, dir_fd=place)
    finally:
        os.close(place)


def _of_disk(error: OSError) -> Trouble:
    """Return what the operating system reports about an entry."""
    if error.errno == errno.ENAMETOOLONG:
        return Trouble("its path is too long for this system: move it to a shorter path")
    todo = "grant this process read access" if isinstance(error, PermissionError) else "check its disk or mount"
    return Trouble(f"{error.strerror}: {todo}", may_pass=True)


def _names(folder: str) -> list[str]:
    return [entry.name for entry in Path(folder).iterdir()]


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")
