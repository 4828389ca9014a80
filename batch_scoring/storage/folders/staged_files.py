"""Files that appear only when complete: written to a scratch file, then published under their names atomically.

On a local folder, a file is linked or renamed into place. On S3, it is a multipart upload that is completed last:
starting it shows whether writing is permitted at all, and an abandoned upload is never visible.
"""

import contextlib
import functools
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from batch_scoring.errors import FileChangedError, TakenError
from batch_scoring.runtime import signals
from batch_scoring.storage import aws
from batch_scoring.storage.aws import as_os_errors
from batch_scoring.storage.folders.folder import Folder
from batch_scoring.storage.folders.local import force_to_disk
from batch_scoring.storage.folders.s3 import S3Folder

PART = 16 * 1024 * 1024
"""Bytes of an upload's part; S3 requires at least 5 MiB for all but the last."""
_MOST_PARTS = 9_000
_UPLOADS = 4
"""Parts uploaded in parallel."""
_OWNER = "batch-scoring-upload"
"""Metadata key of an object that identifies its upload."""


Fate = Literal["unseen", "shown", "unknown"]


class StagedFile(ABC):
    """A file that is being prepared under a scratch name."""

    scratch: Path
    """Where to write the content."""
    fate: Fate = "unseen"
    """The outcome, valid also after `show` has raised."""

    @abstractmethod
    def finish(self) -> None:
        """Do everything that takes time: afterwards the content is stored safely, but not yet visible."""

    @abstractmethod
    def show(self, *, replaces: bool) -> None:
        """Make the file visible under its name, atomically.

        Args:
            replaces: whether an existing file of that name may be replaced.

        Raises:
            TakenError: the file exists and may not be replaced.
        """


@contextlib.contextmanager
def staged(folder: Folder, path: str) -> Iterator[StagedFile]:
    """Prepare a file for `path` in the folder; unless it is shown, nothing of it remains.

    Raises:
        OSError: the folder cannot be written to.
    """
    with folder.scratch() as scratch:
        if not isinstance(folder, S3Folder):
            with signals.at_end(lambda: scratch.unlink(missing_ok=True)):
                scratch.touch()  # fails now if writing is not permitted
                yield _LocalFile(scratch, folder, path)
            return
        upload = _Upload(scratch, folder, path)
        try:
            with signals.at_end(lambda: _remove(scratch)), signals.at_end(upload.abort):
                yield upload
        finally:
            upload.abort()


class _LocalFile(StagedFile):
    def __init__(self, scratch: Path, folder: Folder, path: str) -> None:
        self.scratch, self._folder, self._path = scratch, folder, path

    def finish(self) -> None:
        force_to_disk(self.scratch)

    def show(self, *, replaces: bool) -> None:
        target = Path(self._folder.uri, self._path)
        if replaces:
            self.scratch.replace(target)
        else:
            try:
                _name(self.scratch, target)
            except FileExistsError:
                raise TakenError(f"{target} was written by another process meanwhile") from None
        self.fate = "shown"
        force_to_disk(target.parent)


def _remove(scratch: Path) -> None:
    """Remove a scratch file and its temporary folder."""
    scratch.unlink(missing_ok=True)
    scratch.parent.rmdir()


def _name(scratch: Path, target: Path) -> None:
    """Give a file a name that is not taken.

    Raises:
        FileExistsError: the name is taken.
    """
    try:
        os.link(scratch, target)
        return
    except FileExistsError:
        raise
    except OSError:  # exFAT, SMB and FUSE have no hard links, and each reports it differently
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    try:
        if target.stat().st_size:  # another writer was faster
            raise FileExistsError(target)
        scratch.replace(target)
    except BaseException as error:
        if not isinstance(error, FileExistsError):
            target.unlink(missing_ok=True)
        raise


class _Upload(StagedFile):
    def __init__(self, scratch: Path, folder: S3Folder, path: str) -> None:
        self.scratch, self._uri = scratch, f"{folder.uri}/{path}"
        self._owner = uuid.uuid4().hex
        self._parts: list[dict[str, Any]] = []
        self._place = {"Bucket": folder.bucket, "Key": folder.key(path)}
        self._s3 = aws.client("s3")
        with as_os_errors(self._uri):
            begun = self._s3.create_multipart_upload(**self._place, Metadata={_OWNER: self._owner})
        self._upload: dict[str, str] | None = {**self._place, "UploadId": begun["UploadId"]}

    def finish(self) -> None:
        size = self.scratch.stat().st_size
        part = max(PART, -(-size // _MOST_PARTS))
        starts = range(0, max(size, 1), part)
        with as_os_errors(self._uri), ThreadPoolExecutor(_UPLOADS, "upload") as pool:
            try:
                self._parts = [*pool.map(functools.partial(self._send, part), range(1, len(starts) + 1), starts)]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def show(self, *, replaces: bool) -> None:
        condition = {} if replaces else {"IfNoneMatch": "*"}
        assert self._upload is not None, "it is shown once"
        try:
            with as_os_errors(self._uri):
                done = {"Parts": self._parts}
                self._s3.complete_multipart_upload(**self._upload, MultipartUpload=done, **condition)
        except OSError as error:
            self.fate = "unseen" if isinstance(error, PermissionError) else "unknown"
            if self.fate == "unseen" or not self._is_there():  # otherwise a lost response was retried
                self.fate = "unseen"
                if isinstance(error, FileChangedError):
                    raise TakenError(f"{self._uri} was written by another process meanwhile") from error
                raise
        self.fate, self._upload = "shown", None

    def abort(self) -> None:
        """Abort an upload that is not shown; if that fails, the bucket's lifecycle rule removes it."""
        if self._upload is not None:
            with contextlib.suppress(OSError), as_os_errors(self._uri):
                self._s3.abort_multipart_upload(**self._upload)

    def _send(self, size: int, number: int, start: int) -> dict[str, Any]:
        with self.scratch.open("rb") as file:
            file.seek(start)
            body = file.read(size)
        answer = self._s3.upload_part(**(self._upload or {}), PartNumber=number, Body=body)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _is_there(self) -> bool:
        try:
            with as_os_errors(self._uri):
                found = self._s3.head_object(**self._place)
        except FileNotFoundError:
            return False
        return bool(found["Metadata"].get(_OWNER) == self._owner)
