"""Folders: local ones and s3:// prefixes, behind the same few operations.

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
from batch_scoring.runtime import locks
from batch_scoring.storage import aws
from batch_scoring.storage.aws import as_os_errors
from batch_scoring.storage.folder_entries import Entry, Tree, readable_name, why_not_a_name

if TYPE_CHECKING:
    from typing_extensions import Buffer

Answer = TypeVar("Answer")

READ_AHEAD = 4 * 1024 * 1024
"""Bytes of a ranged read from S3."""


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

    def read(self, path: str) -> bytes:
        """Read a whole file: if it is being replaced, either the old bytes or the new ones.

        Raises:
            FileNotFoundError: the file does not exist.
            EntryError: it is not a file of this folder.
        """
        with self.open(path) as file:
            return file.read()

    def read_each(self, paths: Sequence[str]) -> "builtins.list[bytes | None]":
        """Read several small files, in the given order; None for a file that does not exist."""
        return [self._read_if_there(path) for path in paths]

    def _read_if_there(self, path: str) -> bytes | None:
        try:
            return self.read(path)
        except FileNotFoundError:
            return None

    def subfolder(self, path: str) -> "Folder":
        """Return a folder below this one."""
        return open_folder(f"{self.uri}/{inside(path)}")


def open_folder(uri: str) -> Folder:
    """Return the folder at an absolute path or an s3:// address; it need not exist yet."""
    if uri.startswith("s3://"):
        return S3Folder(uri)
    if "://" in uri:
        raise ValueError(f"{uri!r}: unsupported storage; expected a path or s3://bucket/prefix")
    return LocalFolder(uri)


def inside(path: str) -> str:
    """Return `path` if it stays below the folder to which it is relative.

    Raises:
        OutsideFolderError: it is absolute or contains `..`.
    """
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\\" in path:
        raise OutsideFolderError(f"{path!r} leads out of its folder; expected a relative path without '..'")
    return path


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
    return _unreadable(entry.path, modified, entry.trouble)


def _with_name_checked(file: FileVersion) -> FileVersion:
    reason = why_not_a_name(file.path)
    return _unreadable(readable_name(file.path), file.modified, Trouble(reason)) if reason else file


def _unreadable(path: str, modified: datetime, trouble: Trouble) -> FileVersion:
    return FileVersion(path, "in trouble", 0, modified, trouble)


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


class S3Folder(Folder):
    """A prefix in a bucket of S3 or an S3-compatible store."""

    def __init__(self, uri: str) -> None:
        """`uri`: s3://bucket or s3://bucket/prefix."""
        self.uri = uri.rstrip("/")
        self.bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        if not self.bucket:
            raise ValueError(f"{uri!r} names no bucket; expected s3://bucket/prefix")
        self._prefix = f"{prefix}/" if prefix else ""

    def list(self, prefix: str = "", after: str = "") -> list[FileVersion]:
        """See `Folder.list`. One request per thousand files."""
        options = {"StartAfter": self.key(after)} if after else {}
        with self._os_errors(prefix):
            return sorted(
                FileVersion(
                    path=item["Key"].removeprefix(self._prefix),
                    token=item["ETag"].strip('"'),
                    size=item["Size"],
                    modified=item["LastModified"].astimezone(UTC),
                )
                for page in self._pages(prefix, **options)
                for item in page.get("Contents", [])
                if not item["Key"].endswith("/")
            )

    def children(self) -> Children:
        """See `Folder.children`. One request per thousand names, however many objects are below them."""
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
        """See `Folder.open`. Each read names the version (`If-Match`), so versions are never mixed."""
        raw = _S3Object(self.bucket, self.key(path), token)
        return cast("BinaryIO", io.BufferedReader(raw, READ_AHEAD))

    def read(self, path: str) -> bytes:
        """See `Folder.read`. A single request without a version, so replacing the file does not fail the reader."""
        with self._os_errors(path):
            return _body(functools.partial(aws.client("s3").get_object, Bucket=self.bucket, Key=self.key(path)))

    def read_each(self, paths: Sequence[str]) -> "builtins.list[bytes | None]":
        """See `Folder.read_each`. Each read is a round trip, so they run in parallel."""
        with ThreadPoolExecutor(16) as pool:
            return [*pool.map(self._read_if_there, paths)]

    def put(self, path: str, data: bytes) -> None:
        """See `Folder.put`."""
        with self._os_errors(path):
            aws.client("s3").put_object(Bucket=self.bucket, Key=self.key(path), Body=data)

    def put_if(self, path: str, data: bytes, token: str | None) -> None:
        """See `Folder.put_if`."""
        condition = {"IfNoneMatch": "*"} if token is None else {"IfMatch": f'"{token}"'}
        try:
            with self._os_errors(path):
                aws.client("s3").put_object(Bucket=self.bucket, Key=self.key(path), Body=data, **condition)
        except FileNotFoundError as error:  # what S3 answers if the file to replace is gone
            raise FileChangedError(f"{self.uri}/{path} has changed") from error

    def remove(self, path: str) -> None:
        """See `Folder.remove`."""
        with self._os_errors(path):
            aws.client("s3").delete_object(Bucket=self.bucket, Key=self.key(path))

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """See `Folder.scratch`. It is in the machine's temporary folder until it is uploaded."""
        with tempfile.TemporaryDirectory(prefix="batch_scoring_") as folder:
            yield Path(folder, "scratch")

    def put_file(self, scratch: Path, path: str) -> int:
        """See `Folder.put_file`. One upload: the object appears when the last part has arrived."""
        with self._os_errors(path):
            aws.client("s3").upload_file(str(scratch), self.bucket, self.key(path))
        return scratch.stat().st_size

    def open_arrow(self, path: str) -> pa.NativeFile:
        """See `Folder.open_arrow`. Not Arrow's own S3 client: it fails on a 503 longer than the requested bytes."""
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
            "aws_conditional_put": "etag",  # a commit is a PUT that fails if the version already exists
        }
        return {name: value for name, value in options.items() if value is not None}

    def settle(self, paths: Sequence[str]) -> None:
        """See `Folder.settle`. A confirmed PUT is durable."""

    def _pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        """Yield the responses of a listing, of a thousand names each."""
        ask = functools.partial(aws.client("s3").list_objects_v2, Bucket=self.bucket, Prefix=self.key(prefix))
        while True:
            page = _with_retries(functools.partial(ask, **options))
            yield page
            if not page["IsTruncated"]:
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def key(self, path: str) -> str:
        """Return the object's name in the bucket."""
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
        return self._read(self._size)  # the inherited method makes a request for every 8 KiB

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
    """Return the body of a response."""
    return _with_retries(lambda: bytes(ask()["Body"].read()))


def _with_retries(ask: Callable[[], Answer]) -> Answer:
    """Return a response, with retries if it is truncated: botocore retries requests, not truncated responses."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError
    from urllib3.exceptions import ProtocolError

    for attempt in range(10):
        try:
            return ask()
        except (HTTPClientError, IncompleteReadError, ProtocolError, ConnectionError):
            if attempt == 9:
                raise
    raise AssertionError("unreachable")
