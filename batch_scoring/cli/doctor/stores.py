"""Probes of a pipeline's folders and buckets: reading, writing, commits, and clocks."""

import contextlib
import errno
import functools
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from batch_scoring.cli.doctor import cloud
from batch_scoring.cli.doctor.probe import NETWORK_TIMEOUT, PROBE_TIMEOUT, ProbeFinding, probe
from batch_scoring.cli.doctor.probe_files import new_name, trace
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.tables import TABLES
from batch_scoring.monitoring.checks.input_checks import landing_setting
from batch_scoring.runtime.printable import shell_word
from batch_scoring.storage import aws
from batch_scoring.storage.folders.folder import Folder
from batch_scoring.storage.folders.s3 import S3Folder

SKEW, REFUSED_SKEW = 5.0, 900.0
"""Seconds by which clocks may differ: more than the first is unsafe; with more than the second S3 refuses requests."""


@probe("landing folder", gives="landing", seconds=NETWORK_TIMEOUT)
def landing_is_reachable(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """The landing folder exists and can be listed."""
    folder = pipeline.landing
    if folder.is_local and not Path(folder.uri).is_dir():
        is_file = Path(folder.uri).exists()
        yield ProbeFinding(
            "error",
            folder.uri,
            "it is not a folder" if is_file else "there is no such folder",
            "the landing folder, with dt=YYYY-MM-DD/ below it",
            f"mount or create it (mkdir -p {shell_word(folder.uri)}), {landing_setting(pipeline)}, or correct "
            "BATCH_SCORING_DATA",
        )
        return
    yield from _reach(folder, "s3:ListBucket, s3:GetObject")


@probe("output folder", gives="output", seconds=NETWORK_TIMEOUT)
def output_is_reachable(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """The folder of tables, state and reports can be listed."""
    yield from _reach(pipeline.output, "s3:ListBucket, s3:GetObject, s3:PutObject, s3:DeleteObject")


@probe("bundle folder", gives="bundle", seconds=NETWORK_TIMEOUT)
def bundle_is_reachable(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """The folder of the model bundle can be listed."""
    yield from _reach(pipeline.bundle, "s3:ListBucket, s3:GetObject")


@probe("writable", "output", seconds=PROBE_TIMEOUT)
def writable(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """A file can be written, read back and removed in the output folder, and those below it are ours."""
    if isinstance(pipeline.output, S3Folder):
        yield from _writable_on_s3(pipeline.output)
        return
    top = Path(pipeline.output.uri)
    folder = existing(top)
    name = folder / new_name()
    with trace(str(name), functools.partial(_remove, name)):
        try:
            _write(name)
        except OSError as error:
            yield _unwritable(folder, error)
            return
    for folder in _folders_below(top):  # one of them may be another user's, or a mount of its own
        if not os.access(folder, os.W_OK | os.X_OK):
            is_locked = os.statvfs(folder).f_flag & os.ST_RDONLY
            code = errno.EROFS if is_locked else errno.EACCES
            yield _unwritable(folder, OSError(code, os.strerror(code)))


@probe("hard links", "output")
def hard_links(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """The tables' folder supports hard links: on a disk, a commit is one."""
    if not pipeline.output.is_local:
        return
    folder = existing(Path(pipeline.output.uri, "tables"))
    first, second = folder / new_name(), folder / new_name()

    def remove() -> None:
        _remove(first)
        _remove(second)

    with trace(str(first), remove):
        try:
            first.touch(exist_ok=False)
        except OSError:
            return  # not writable: the probe of that name reports it
        try:
            os.link(first, second)
        except OSError as error:
            yield ProbeFinding(
                "error",
                str(folder),
                f"it does not support hard links: {error.strerror}",
                "a file system with hard links: the commit of a table is one, so that of two writers one fails",
                "put the data root on a local disk or on "
                "NFS (not FAT, not every FUSE or SMB mount), or on S3: set BATCH_SCORING_DATA",
            )


@probe("conditional writes", "output", seconds=PROBE_TIMEOUT)
def conditional_writes(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """The bucket refuses a second writer of one name: on S3, a commit is such a PUT."""
    if not isinstance(pipeline.output, S3Folder):
        return
    s3, folder, name = aws.quick_client("s3"), pipeline.output, new_name()
    where = {"Bucket": folder.bucket, "Key": _key(folder, name)}
    with trace(f"{folder.uri}/{name}", lambda: s3.delete_object(**where)):
        statuses = [_status(lambda: s3.put_object(**where, Body=b"probe", IfNoneMatch="*")) for _ in range(2)]
        if statuses[0] in (401, 403):
            return  # not writable: the probe of that name reports it
        if statuses != [200, 412]:
            yield ProbeFinding(
                "error",
                folder.uri,
                f"two PUTs with If-None-Match: * of one name were answered with {statuses[0]} and {statuses[1]}",
                "200 and 412: otherwise two writers of one commit would both succeed, and rows be lost or doubled",
                "use a store with conditional writes: AWS S3, MinIO, R2, Ceph from Squid on; see whether a "
                "proxy in between drops the header",
            )


@probe("clock", "output", seconds=NETWORK_TIMEOUT)
def clock(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """This machine's clock and the store's agree."""
    off = _offset_on_s3(pipeline.output) if isinstance(pipeline.output, S3Folder) else _offset_on_disk(pipeline.output)
    if off is not None and abs(off) > SKEW:
        where = f"s3://{pipeline.output.bucket}" if isinstance(pipeline.output, S3Folder) else pipeline.output.uri
        is_refused = isinstance(pipeline.output, S3Folder) and abs(off) > REFUSED_SKEW
        yield ProbeFinding(
            "error" if is_refused else "warning",
            where,
            f"this machine's clock is {abs(off):.0f} s "
            f"{'behind' if off > 0 else 'ahead of'} the store's ({datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC here)",
            f"at most {SKEW:g} s: files' ages, deadlines and leases are compared with it",
            "set the clock, and keep it set: timedatectl set-ntp true, or chronyc makestep",
        )


def existing(path: Path) -> Path:
    """The folder itself, or the nearest existing one above it: before the first day there is none."""
    while not path.is_dir():
        path = path.parent
    return path


def _reach(folder: Folder, action: str) -> Iterator[ProbeFinding]:
    if isinstance(folder, S3Folder):
        try:
            answer = aws.quick_client("s3").list_objects_v2(Bucket=folder.bucket, Prefix=_key(folder), MaxKeys=1)
            yield from cloud.other_region(answer, f"s3://{folder.bucket}")
        except Exception as error:  # boto3 raises many kinds of errors; each is explained
            yield cloud.explain(error, folder.uri, action)
        return
    place = Path(folder.uri)
    try:
        if place.exists() and not place.is_dir():
            yield ProbeFinding("error", folder.uri, "it is not a folder", "a folder", "move the file away")
        folder.children()
    except OSError as error:
        yield ProbeFinding(
            "error",
            folder.uri,
            f"it cannot be listed: {error.strerror or error}",
            f"a folder that user {os.getuid()} may read",
            f"check its mount and its permissions: ls -ld {folder.uri}",
        )


def _key(folder: S3Folder, name: str = "") -> str:
    return f"{folder.uri}/{name}".removeprefix(f"s3://{folder.bucket}/")


def _writable_on_s3(folder: S3Folder) -> Iterator[ProbeFinding]:
    s3, name = aws.quick_client("s3"), new_name()
    where = {"Bucket": folder.bucket, "Key": _key(folder, name)}
    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("s3:PutObject", lambda: s3.put_object(**where, Body=b"probe")),
        ("s3:GetObject", lambda: s3.get_object(**where)["Body"].read()),
        ("s3:DeleteObject", lambda: s3.delete_object(**where)),
    )
    with trace(f"{folder.uri}/{name}", lambda: _silently(lambda: s3.delete_object(**where))):
        for action, step in steps:
            try:
                step()
            except Exception as error:
                yield cloud.explain(error, folder.uri, action)
                if action == "s3:DeleteObject":
                    yield ProbeFinding(
                        "info", folder.uri, f"the probe object {name} was left behind", remedy="remove it by hand"
                    )
                return


def _folders_below(top: Path) -> list[Path]:
    """The existing folders that runs write into."""
    tables = [f"tables/{name}" for name in TABLES]
    names = ["state", "tables", *tables, *(f"{table}/_delta_log" for table in tables), "reports"]
    return [top / name for name in names if (top / name).is_dir()]


def _write(file: Path) -> None:
    """Write as a run does: a scratch file, forced to disk and renamed."""
    with file.open("xb") as stream:
        stream.write(b"probe")
        stream.flush()
        os.fsync(stream.fileno())
    file.replace(file)
    if file.read_bytes() != b"probe":
        raise OSError(errno.EIO, "the content read differs from what was written", str(file))


def _unwritable(folder: Path, error: OSError) -> ProbeFinding:
    return ProbeFinding(
        "error",
        str(folder),
        f"nothing can be written here: {error.strerror or error}",
        f"a folder that user {os.getuid()} may write to",
        _remedy(error, folder),
    )


def _remedy(error: OSError, folder: Path) -> str:
    place = shell_word(str(folder))
    if error.errno == errno.EROFS:
        return f"mount it for writing: mount -o remount,rw {place}; a failing disk is remounted read-only, see dmesg"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"make room: df -h {place}; df -i {place}"
    return f"let user {os.getuid()} write there: ls -ld {place}; chown -R {os.getuid()} {place}"


def _remove(file: Path) -> None:
    if os.path.lexists(file):  # on a read-only disk the call would fail for a file that is not there, too
        file.unlink()


def _silently(act: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        act()


def _status(ask: Callable[[], object]) -> int:
    from botocore.exceptions import ClientError

    try:
        ask()
    except ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
    return 200


def _offset_on_s3(folder: S3Folder) -> float | None:
    """Seconds by which the store's clock is ahead; its answers have whole seconds."""
    from botocore.exceptions import ClientError

    s3, before = aws.quick_client("s3"), time.time()
    try:
        answer = s3.list_objects_v2(Bucket=folder.bucket, Prefix=_key(folder), MaxKeys=1)
    except ClientError as error:
        answer = error.response
    there, now = cloud.server_time(answer), time.time()
    if there is None:
        return None
    early, late = there.timestamp() - now, there.timestamp() + 1 - before
    return max(early, 0.0) + min(late, 0.0)


def _offset_on_disk(folder: Folder) -> float | None:
    """Seconds by which timestamps of the file system are ahead; on a network mount they come from another machine."""
    file = existing(Path(folder.uri)) / new_name()
    with trace(str(file), lambda: _remove(file)):
        before = time.time()
        try:
            file.touch(exist_ok=False)
        except OSError:
            return None  # not writable: the probe of that name reports it
        stamp, now = file.stat().st_mtime, time.time()
    return max(stamp - now, 0.0) + min(stamp - before + 0.02, 0.0)  # the kernel's own stamps are some milliseconds late
