"""The entries of a folder on disk: its files, its folders, and what is wrong with the others.

The rule stands in `storage.py`. A file is opened from the folder down, a name at a time and no link followed, so that
nothing that is put there meanwhile leads elsewhere; and what is not a file is closed again before a byte is read.
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
    """A file, a folder, or an entry in trouble."""

    path: str
    """Relative to the folder; of one in trouble as it can be printed."""
    real: str = ""
    """The absolute path without links; empty of one in trouble."""
    stat: os.stat_result | None = None
    """Of what a link leads to; of one in trouble its own, None if it cannot be had."""
    is_linked: bool = False
    """Whether a link to a folder leads there."""
    trouble: Trouble | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder that may be walked into."""
        return self.trouble is None and self.stat is not None and stat.S_ISDIR(self.stat.st_mode)


def readable_name(name: str) -> str:
    r"""A name as it can be shown and encoded: what is not UTF-8 as `\xe9`, control characters as `\n`."""
    return "".join(char if char.isprintable() else _escaped(char) for char in name)


def _escaped(char: str) -> str:
    byte = ord(char) - 0xDC00  # as the file system's names are decoded
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else char.encode("unicode_escape").decode()


def why_not_a_name(path: str) -> str:
    """Why no file can be read under a name, whatever it holds; empty if one can."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8: rename it"
    if "\\" in path:
        return "its name has a backslash, which separates folders elsewhere: rename it"
    return "its name has '..', which leads out of its folder: rename it" if ".." in path.split("/") else ""


class Tree:
    """A folder on disk with all that lies below it."""

    def __init__(self, folder: Path) -> None:
        """`folder`: absolute; may be a link itself."""
        self._shown, self._real = str(folder), os.path.realpath(folder)

    @property
    def top(self) -> Entry:
        """The folder itself.

        Raises:
            FileNotFoundError, NotADirectoryError: there is none.
            OSError: it cannot be looked at.
        """
        return Entry("", self._real, Path(self._real).stat())

    def children(self) -> Iterator[Entry]:
        """What stands directly in the folder, by name.

        Raises:
            OSError: it cannot be listed.
        """
        try:
            names = sorted(_names(self._real))
        except _GONE:
            return
        yield from filter(None, (self._look(self.top, name) for name in names))

    def below(self, prefix: str) -> Iterator[Entry]:
        """All files whose path begins with `prefix`, and what is in trouble there; folders are walked through.

        Raises:
            OSError: the folder itself cannot be looked at.
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
        """The file or folder at a path.

        Raises:
            FileNotFoundError, NotADirectoryError: there is none.
            EntryError: it is not read.
            OSError: it cannot be looked at.
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
        """A descriptor of the file at a path, which is a regular file within this folder whatever happens meanwhile.

        Raises:
            FileChangedError: a link or something else took its place just now.
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
        """All files and troubles in and below a folder, of its own entries those whose name begins with `start`."""
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
        """An entry of a folder, in trouble or not; None if it has gone since it was listed."""
        path, own = _joined(folder.path, name), f"{folder.real}/{name}"
        try:
            return self._found(folder, name)
        except _GONE:
            return None
        except EntryError as error:
            trouble = error.trouble
        except FileChangedError:
            trouble = Trouble("it was replaced while it was looked at", may_pass=True)
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
                self._refuse_to_walk(path, folder, real)
                is_linked = True
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            kind = next((words for is_kind, words in _KINDS if is_kind(found.st_mode)), "neither file nor folder")
            raise self._error(path, f"it is {kind}; expected a file: remove it")
        return Entry(path, real, found, is_linked)

    def _followed(self, path: str, link: str) -> tuple[str, os.stat_result]:
        """The real path that a link leads to, and what is there."""
        said = f"it is a link to '{readable_name(str(Path(link).readlink()))}'"
        if not _is_within(os.path.realpath(link), self._real):
            raise self._error(path, f"{said}, which leads out of {self._shown}: put there what it leads to")
        try:
            found = Path(link).stat()  # `gone/../a.csv` is a.csv by its name alone
            real = os.path.realpath(link, strict=True)
        except _GONE:
            raise self._error(path, f"{said}, where there is nothing: bring what it leads to, or remove it") from None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise self._error(path, f"{said}, which leads back to itself: remove it") from error
        if not _is_within(real, self._real) or not os.path.samestat(found, os.lstat(real)):
            raise FileChangedError(f"{self._shown}/{path} was replaced while it was looked at")
        return real, found

    def _refuse_to_walk(self, path: str, folder: Entry, real: str) -> None:
        """Links to folders must not lead in a circle, nor double what lies below at every level."""
        if _is_within(folder.real, real):
            raise self._error(path, "it is a link to a folder above it: remove it")
        if folder.is_linked:
            raise self._error(path, "it is a linked folder within a linked folder: put there what it leads to")

    def _error(self, path: str, reason: str) -> EntryError:
        return EntryError(f"{self._shown}/{readable_name(path)}", Trouble(reason))


def _open_below(folder: str, parts: tuple[str, ...]) -> int:
    """Open a file a name at a time, so that no name on the way can be a link."""
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
    """What the operating system says of an entry."""
    if error.errno == errno.ENAMETOOLONG:
        return Trouble("its path is too long for this system: put it higher up")
    todo = "let this process read it" if isinstance(error, PermissionError) else "see to its disk or mount"
    return Trouble(f"{error.strerror}: {todo}", may_pass=True)


def _names(folder: str) -> list[str]:
    return [entry.name for entry in Path(folder).iterdir()]


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")
