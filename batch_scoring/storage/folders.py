"""Where bytes are: a local folder or an s3:// prefix, behind the same few operations.

A folder lists files with version tokens, opens one version of a file, and puts files so that a reader sees the
old bytes or the new ones. It knows no pipeline, no day and no table.

What belongs to a folder on disk, wherever something is read (landing files, markers, manifests, bundles, state):

- its address may be a link, or lead over links: what it leads to is the folder;
- below it, its regular files, and its folders with theirs;
- a link below it, if it leads, over however many links, to one of these: `a.csv -> ..data/a.csv`. A linked folder is
  walked into, unless it lies above the link or the link itself lies in a linked folder.

Everything else is in trouble, and never opened: a link that leads out of the folder, to nothing or back to itself; a
FIFO, a socket, a device; a name that is not UTF-8 or has a backslash; what the operating system gives an error for. A
listing shows it with the reason (`look`), so that whoever reads for others can say what is left out, and goes on with
the rest; opening it is an `EntryError`. `list` is for folders in which only our own files count.
"""

import builtins
import contextlib
import errno
import functools
import io
import os
import re
import stat
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import pyarrow as pa

from batch_scoring.errors import EntryError as EntryError
from batch_scoring.errors import FileChangedError as FileChangedError
from batch_scoring.errors import OutsideFolderError, Trouble
from batch_scoring.storage import aws
from batch_scoring.storage.aws import as_os_errors
from batch_scoring.storage.entries import Entry, Tree, readable_name, why_not_a_name

if TYPE_CHECKING:
    from typing_extensions import Buffer

Answer = TypeVar("Answer")

READ_AHEAD = 4 * 1024 * 1024
"""Bytes of one ranged read from S3."""


@dataclass(frozen=True, order=True)
class FileVersion:
    """One version of one file, as a listing shows it."""

    path: str
    """Relative to the folder, with forward slashes."""
    token: str
    """Changes whenever the content does: the ETag on S3; on disk modification time, size, inode and change time."""
    size: int
    """Bytes."""
    modified: datetime
    """UTC."""
    trouble: Trouble | None = field(default=None, compare=False)
    """Why it cannot be read, if it cannot: its token and its size say nothing then."""


@dataclass(frozen=True)
class Children:
    """What stands directly in a folder."""

    folders: tuple[str, ...]
    """Names, sorted."""
    files: tuple[str, ...]
    troubled: tuple[FileVersion, ...] = ()
    """What is neither, with the reason."""


class Folder(ABC):
    """A place for files. Every path is relative to it, with forward slashes, and cannot leave it."""

    uri: str
    """Absolute path or s3:// address, without a slash at the end."""

    @abstractmethod
    def list(self, prefix: str = "") -> list[FileVersion]:
        """All files whose path begins with `prefix`, sorted by path. Nothing there is an empty list."""

    def look(self, prefix: str = "") -> "builtins.list[FileVersion]":
        """The same in a folder that others write: also what is in trouble, and what linked folders hold."""
        return [_with_name_trouble(file) for file in self.list(prefix)]

    @abstractmethod
    def children(self) -> Children:
        """The names directly in this folder, whatever lies below them. Nothing there is no name."""

    def version(self, path: str) -> FileVersion | None:
        """The present version of a file; None if there is no file of that name."""
        return next((file for file in self.list(path) if file.path == path), None)

    @abstractmethod
    def open(self, path: str, token: str | None = None) -> BinaryIO:
        """Open a file for reading at any position.

        Raises:
            FileNotFoundError: there is no such file.
            FileChangedError: its version is not `token`, now or (on S3) at any later read.
            EntryError: what is there is not a file of this folder.
        """

    @abstractmethod
    def put(self, path: str, data: bytes) -> None:
        """Write a small file whole; a file of that name is replaced in one step."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Take a file away; nothing happens if there is none."""

    @abstractmethod
    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """A local file to write a large file into before `put_file`; removed at the end if still there."""

    @abstractmethod
    def put_file(self, scratch: Path, path: str) -> int:
        """Make the finished scratch file visible, whole, under a new name. Returns its size in bytes."""

    @abstractmethod
    def open_arrow(self, path: str) -> pa.NativeFile:
        """Open a file for Arrow's readers, at any position; on a local disk without Python in between."""

    @abstractmethod
    def delta_options(self) -> dict[str, str]:
        """The `storage_options` with which deltalake reaches this folder."""

    @abstractmethod
    def settle(self, paths: Sequence[str]) -> None:
        """Force files that other libraries wrote, those of them that are there, to stable storage."""

    @property
    def is_local(self) -> bool:
        """Whether the folder is on this machine's file systems."""
        return not self.uri.startswith("s3://")

    @property
    def canonical(self) -> str:
        """The one address of this folder, whatever links lead to it."""
        return str(Path(self.uri).resolve()) if self.is_local else self.uri

    def read(self, path: str) -> bytes:
        """The whole content of a file: of one that is replaced meanwhile, the old bytes or the new ones.

        Raises:
            FileNotFoundError: there is no such file.
            EntryError: what is there is not a file of this folder.
        """
        with self.open(path) as file:
            return file.read()

    def read_each(self, paths: Sequence[str]) -> "builtins.list[bytes | None]":
        """The content of several small files, in their order; None for one that is not there."""
        return [self._read_if_there(path) for path in paths]

    def _read_if_there(self, path: str) -> bytes | None:
        try:
            return self.read(path)
        except FileNotFoundError:
            return None

    def subfolder(self, path: str) -> "Folder":
        """The folder below this one."""
        return open_folder(f"{self.uri}/{inside(path)}")


def open_folder(uri: str) -> Folder:
    """The folder at an absolute path or an s3:// address; it need not exist yet."""
    if uri.startswith("s3://"):
        return S3Folder(uri)
    if "://" in uri:
        raise ValueError(f"{uri!r}: no such kind of storage; expected a path or s3://bucket/prefix")
    return LocalFolder(uri)


def inside(path: str) -> str:
    """`path` itself, if it stays below the folder it is relative to.

    Raises:
        OutsideFolderError: it is absolute or climbs with `..`.
    """
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\\" in path:
        raise OutsideFolderError(f"{path!r} leaves its folder; expected a relative path without '..'")
    return path


class LocalFolder(Folder):
    """A folder on disk."""

    def __init__(self, path: str) -> None:
        """`path`: absolute, or relative to the working directory."""
        self._root = Path(path).absolute()
        self.uri = str(self._root)

    def list(self, prefix: str = "") -> list[FileVersion]:
        """See `Folder.list`. Links to folders are not followed, and what is not a file is left out.

        Raises:
            PermissionError: a folder below may not be looked into; what it holds would be missed in silence.
        """
        start = self._root / inside(prefix)
        top = start if prefix.endswith("/") or not prefix else start.parent
        found = []
        for folder, _, names in os.walk(top, onerror=_raise_unless_gone):
            for name in names:
                file = Path(folder, name)
                path = file.relative_to(self._root).as_posix()
                if path.startswith(prefix):
                    with contextlib.suppress(FileNotFoundError, EntryError):  # gone since the walk saw it
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
            OSError: the folder itself cannot be looked at.
        """
        return sorted(map(_seen, self._tree.below(inside(prefix))))

    def children(self) -> Children:
        """See `Folder.children`."""
        names: dict[bool, list[str]] = {True: [], False: []}
        troubled = []
        for entry in self._tree.children():
            if entry.trouble:
                troubled.append(_seen(entry))
            else:
                names[entry.is_folder].append(entry.path)
        return Children(tuple(names[True]), tuple(names[False]), tuple(troubled))

    def version(self, path: str) -> FileVersion | None:
        """See `Folder.version`.

        Raises:
            EntryError: what is there is neither a file nor a folder of this one.
        """
        try:
            entry = self._tree.find(inside(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if entry.is_folder else replace(_seen(entry), path=path)

    def open(self, path: str, token: str | None = None) -> BinaryIO:
        """See `Folder.open`. A file replaced while it is open keeps its old content for this reader."""
        file = os.fdopen(self._tree.open(inside(path)), "rb")
        found = _version(path, os.fstat(file.fileno())).token
        if token is not None and not is_version(found, token):
            file.close()
            raise FileChangedError(f"{self.uri}/{path} has changed: version {found}, expected {token}")
        return file

    @property
    def _tree(self) -> Tree:
        return Tree(self._root)  # resolved each time: a link to the folder may be turned elsewhere

    def put(self, path: str, data: bytes) -> None:
        """See `Folder.put`."""
        with self.scratch() as scratch:
            scratch.write_bytes(data)
            self.put_file(scratch, path)

    def remove(self, path: str) -> None:
        """See `Folder.remove`."""
        (self._root / inside(path)).unlink(missing_ok=True)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """See `Folder.scratch`. It lies in this folder, so that publishing is a rename."""
        self._root.mkdir(parents=True, exist_ok=True)
        file = self._root / f".{uuid.uuid4().hex}.tmp"
        try:
            yield file
        except OSError as error:
            if error.errno == errno.ENOSPC and error.filename is None:  # a write does not say where
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


def _seen(entry: Entry) -> FileVersion:
    """An entry as a listing shows it."""
    if entry.trouble is None:
        assert entry.stat is not None, "it was looked at"
        return _version(entry.path, entry.stat)
    modified = datetime.fromtimestamp(entry.stat.st_mtime if entry.stat else 0, UTC)
    return _troubled(entry.path, modified, entry.trouble)


def _with_name_trouble(file: FileVersion) -> FileVersion:
    reason = why_not_a_name(file.path)
    return _troubled(readable_name(file.path), file.modified, Trouble(reason)) if reason else file


def _troubled(path: str, modified: datetime, trouble: Trouble) -> FileVersion:
    return FileVersion(path, "in trouble", 0, modified, trouble)


def is_version(found: str, pinned: str) -> bool:
    """Whether a file has the token that was pinned.

    Until 2026-11 the token of a file on disk was modification time and size alone; one that was pinned then is
    compared as it was then.
    """
    return pinned in (found, former_token(found))


def former_token(token: str) -> str:
    """What the token of a file on disk was until 2026-11; another token as it is."""
    first, *rest = token.split(".")
    return first if len(rest) == 2 and re.fullmatch("-?[0-9a-f]+-[0-9a-f]+", first) else token


def force_to_disk(path: Path) -> None:
    """Have the kernel write a file, or the names in a folder, to stable storage."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class S3Folder(Folder):
    """A prefix in a bucket of S3 or of a store that speaks its protocol."""

    def __init__(self, uri: str) -> None:
        """`uri`: s3://bucket or s3://bucket/prefix."""
        self.uri = uri.rstrip("/")
        self.bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        if not self.bucket:
            raise ValueError(f"{uri!r} names no bucket; expected s3://bucket/prefix")
        self._prefix = f"{prefix}/" if prefix else ""

    def list(self, prefix: str = "") -> list[FileVersion]:
        """See `Folder.list`."""
        with self._os_errors(prefix):
            return sorted(
                FileVersion(
                    path=item["Key"].removeprefix(self._prefix),
                    token=item["ETag"].strip('"'),
                    size=item["Size"],
                    modified=item["LastModified"].astimezone(UTC),
                )
                for page in self._pages(prefix)
                for item in page.get("Contents", [])
                if not item["Key"].endswith("/")
            )

    def children(self) -> Children:
        """See `Folder.children`. One request for a thousand names, however many objects lie below them."""
        with self._os_errors(""):
            pages = list(self._pages("", Delimiter="/"))
        folders = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", [])]
        files = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return Children(
            tuple(sorted(name.removeprefix(self._prefix).rstrip("/") for name in folders)),
            tuple(sorted(name.removeprefix(self._prefix) for name in files if not name.endswith("/"))),
        )

    def version(self, path: str) -> FileVersion | None:
        """See `Folder.version`."""
        try:
            with self._os_errors(path):
                head = aws.client("s3").head_object(Bucket=self.bucket, Key=self.key(path))
        except FileNotFoundError:
            return None
        modified = head["LastModified"].astimezone(UTC)
        return FileVersion(path, head["ETag"].strip('"'), head["ContentLength"], modified)

    def open(self, path: str, token: str | None = None) -> BinaryIO:
        """See `Folder.open`. Each read names the version (`If-Match`), so two versions are never mixed."""
        raw = _S3Object(self.bucket, self.key(path), token)
        return cast("BinaryIO", io.BufferedReader(raw, READ_AHEAD))

    def read(self, path: str) -> bytes:
        """See `Folder.read`. One request that names no version, so a replaced file does not fail its reader."""
        with self._os_errors(path):
            return _body(functools.partial(aws.client("s3").get_object, Bucket=self.bucket, Key=self.key(path)))

    def read_each(self, paths: Sequence[str]) -> "builtins.list[bytes | None]":
        """See `Folder.read_each`. A read is a round trip, so they are made beside each other."""
        with ThreadPoolExecutor(16) as pool:
            return [*pool.map(self._read_if_there, paths)]

    def put(self, path: str, data: bytes) -> None:
        """See `Folder.put`."""
        with self._os_errors(path):
            aws.client("s3").put_object(Bucket=self.bucket, Key=self.key(path), Body=data)

    def remove(self, path: str) -> None:
        """See `Folder.remove`."""
        with self._os_errors(path):
            aws.client("s3").delete_object(Bucket=self.bucket, Key=self.key(path))

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """See `Folder.scratch`. It lies in the machine's temporary folder until it is uploaded."""
        with tempfile.TemporaryDirectory(prefix="batch_scoring_") as folder:
            yield Path(folder, "scratch")

    def put_file(self, scratch: Path, path: str) -> int:
        """See `Folder.put_file`. One upload: the object appears when its last part is there."""
        with self._os_errors(path):
            aws.client("s3").upload_file(str(scratch), self.bucket, self.key(path))
        return scratch.stat().st_size

    def open_arrow(self, path: str) -> pa.NativeFile:
        """See `Folder.open_arrow`. Not Arrow's own S3: it gives up at a 503 longer than the bytes it asked for."""
        return pa.PythonFile(self.open(path), mode="r")

    def delta_options(self) -> dict[str, str]:
        """See `Folder.delta_options`."""
        access = aws.access()
        options = {
            "AWS_ACCESS_KEY_ID": access.key,
            "AWS_SECRET_ACCESS_KEY": access.secret,
            "AWS_SESSION_TOKEN": access.session_token,
            "AWS_REGION": access.region,
            "AWS_ENDPOINT_URL": access.endpoint,
            "AWS_ALLOW_HTTP": "true" if (access.endpoint or "").startswith("http://") else None,
            "aws_conditional_put": "etag",  # a commit is a PUT that fails when the version is there already
        }
        return {name: value for name, value in options.items() if value is not None}

    def settle(self, paths: Sequence[str]) -> None:
        """See `Folder.settle`. An answered PUT is durable."""

    def _pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        """A listing's answers, of a thousand names each."""
        ask = functools.partial(aws.client("s3").list_objects_v2, Bucket=self.bucket, Prefix=self.key(prefix))
        while True:
            page = _patiently(functools.partial(ask, **options))
            yield page
            if not page["IsTruncated"]:
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def key(self, path: str) -> str:
        """The object's name in the bucket."""
        return self._prefix + inside(path)

    def _os_errors(self, path: str) -> contextlib.AbstractContextManager[None]:
        return as_os_errors(f"s3://{self.bucket}/{self.key(path)}")


class _S3Object(io.RawIOBase):
    """One version of an object as a seekable file; every read is one ranged GET."""

    def __init__(self, bucket: str, key: str, token: str | None) -> None:
        self._s3 = aws.client("s3")
        self._bucket, self._key, self._position = bucket, key, 0
        self._uri = f"s3://{bucket}/{key}"
        with as_os_errors(self._uri):
            head = self._s3.head_object(Bucket=bucket, Key=key)
        self._size: int = head["ContentLength"]
        self._token = head["ETag"].strip('"')
        if token is not None and self._token != token:
            raise self._changed(token)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: "Buffer") -> int:
        view = memoryview(buffer).cast("B")
        body = self._read(len(view))
        view[: len(body)] = body
        return len(body)

    def readall(self) -> bytes:
        return self._read(self._size)  # io's own makes a request every 8 KiB

    def _read(self, most: int) -> bytes:
        stop = min(self._position + most, self._size)
        if stop <= self._position:
            return b""
        wanted = f"bytes={self._position}-{stop - 1}"
        ask = functools.partial(
            self._s3.get_object, Bucket=self._bucket, Key=self._key, Range=wanted, IfMatch=f'"{self._token}"'
        )
        try:
            with as_os_errors(self._uri):
                body = _body(ask)
        except (FileChangedError, FileNotFoundError) as error:
            raise self._changed(self._token) from error
        self._position += len(body)
        return body

    def _changed(self, expected: str) -> FileChangedError:
        return FileChangedError(f"{self._uri} has changed; expected version {expected}")


def _body(ask: Callable[[], Any]) -> bytes:
    """The body of an answer."""
    return _patiently(lambda: bytes(ask()["Body"].read()))


def _patiently(ask: Callable[[], Answer]) -> Answer:
    """An answer; one that is cut short is asked for again: botocore repeats requests, not the reading of answers."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError
    from urllib3.exceptions import ProtocolError

    for attempt in range(10):
        try:
            return ask()
        except (HTTPClientError, IncompleteReadError, ProtocolError, ConnectionError):
            if attempt == 9:
                raise
    raise AssertionError("unreachable")
