"""Folders in S3 and in stores that are compatible with it."""

import builtins
import contextlib
import functools
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import pyarrow as pa

from batch_scoring.errors import FileChangedError
from batch_scoring.storage import aws
from batch_scoring.storage.aws import as_os_errors
from batch_scoring.storage.folders.folder import Children, FileVersion, Folder, inside

if TYPE_CHECKING:
    from typing_extensions import Buffer

Answer = TypeVar("Answer")

READ_AHEAD = 4 * 1024 * 1024
"""Bytes of a ranged read from S3."""


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

    def read(self, path: str, token: str | None = None) -> bytes:
        """See `Folder.read`. A single request; without a version, replacing the file does not fail the reader."""
        condition = {"IfMatch": f'"{token}"'} if token else {}
        ask = functools.partial(aws.client("s3").get_object, Bucket=self.bucket, Key=self.key(path), **condition)
        with self._os_errors(path):
            return _body(ask)

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

    def subfolder(self, path: str) -> Folder:
        """See `Folder.subfolder`."""
        return S3Folder(f"{self.uri}/{inside(path)}")

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
