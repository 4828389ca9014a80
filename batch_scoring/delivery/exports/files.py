"""Exports to files, on a disk or on S3.

    calls_2026-11-28.3-9f1c2ab4.csv           the rows of one version: its transaction, and a digest of its content
    calls_2026-11-28.manifest.json            names the valid file: the marker

Every version has a file of its own, so nothing that is read is ever written over; the manifest is replaced last, if it
is still the one that was compared. The file that it named before is kept until the next version, for those who are
reading it. The transaction cannot be left to the metadata of a file with one name: S3 compares content alone, and a
late export would find the content of the day before its correction and write over the correction.
"""

import contextlib
import hashlib
import itertools
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from batch_scoring.delivery.exports.sink import Delivered, Delivery, Marker, Outcome, Version
from batch_scoring.errors import FileChangedError, RowsLostError, SinkError, SinkRefusedError
from batch_scoring.operations.retention.plan import SCRATCH
from batch_scoring.runtime import signals
from batch_scoring.storage import row_files
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.folders.folder import Folder
from batch_scoring.storage.folders.staged_files import staged
from batch_scoring.storage.row_files import FORMS

_LEFT_BEHIND = timedelta(days=1)
"""Age from which a file that no manifest names was left by an export that was killed."""
_SWITCHES = 5
"""Attempts to replace a manifest that others replace at the same time."""


class Manifest(BaseModel):
    """The valid file of a day."""

    pipeline: str
    export: str
    day: str
    file: str
    """Its name, in the folder of the manifest."""
    rows: int
    bytes: int
    sha256: str
    created: int
    """When the exported table was created, in milliseconds since 1970."""
    transaction: int
    """Number of commits to the day in that table."""
    run_id: str
    exported_at: datetime
    of: str = ""
    """The exported table: predictions or decisions."""
    previous: str = ""
    """The file that was valid before, which is kept until the next version."""

    @property
    def marker(self) -> Marker:
        """The version that it shows."""
        return Marker(Version(self.created, self.transaction), self.rows, self.run_id, self.exported_at, self.of)


@dataclass(frozen=True)
class _Day:
    """The folder and the names of a day's files."""

    folder: Folder
    stem: str
    form: str

    @property
    def manifest(self) -> str:
        return f"{self.stem}.manifest.json"

    def file(self, version: Version, sha256: str) -> str:
        """Name of a version's file; a table that was made anew has other names for its versions."""
        digest = hashlib.sha256(f"{version.created} {sha256}".encode()).hexdigest()[:8]
        return f"{self.stem}.{version.transaction}-{digest}{self.form}"


class FileSink:
    """Files of an export."""

    def __init__(self, path: str, *, for_people: bool = False) -> None:
        """Nothing is written yet.

        Args:
            path: absolute path or s3:// address of a day's file, with {day} in it.
            for_people: whether a spreadsheet opens the files.
        """
        self.address = path
        self._for_people = for_people

    def marker(self, day: str) -> Marker | None:
        """See `Sink.marker`."""
        with _as_sink_errors(self.address):
            manifest, _ = _read(self._of(day))
        return manifest.marker if manifest else None

    def deliver(self, delivery: Delivery) -> Delivered:
        """See `Sink.deliver`."""
        place, source = self._of(delivery.day), _Source(delivery)
        with _as_sink_errors(self.address, source):
            shown, _ = _read(place)
            if shown and (outcome := _refused(place, shown, delivery)):
                return self._shown(place, shown, outcome)
            with place.folder.scratch() as scratch, signals.at_end(lambda: scratch.unlink(missing_ok=True)):
                rows = self._write(scratch, place.form, delivery, source)
                size, sha256 = scratch.stat().st_size, _sha256(scratch)
                name = place.file(delivery.version, sha256)
                place.folder.put_file(scratch, name)
            new = Manifest(
                pipeline=delivery.pipeline,
                export=delivery.export,
                day=delivery.day,
                file=name,
                rows=rows,
                bytes=size,
                sha256=sha256,
                created=delivery.version.created,
                transaction=delivery.version.transaction,
                run_id=delivery.run_id,
                of=delivery.of,
                exported_at=datetime.now(UTC),
            )
            return self._switch(place, new, delivery)

    def problems(self, schema: pa.Schema) -> Iterator[str]:
        """See `Sink.problems`."""
        place = self._of("probe")
        if place.form.startswith(".csv"):
            for field in schema:
                if pa.types.is_struct(field.type) or pa.types.is_map(field.type):
                    yield f"column {field.name} is {field.type}, which CSV cannot hold; export to .parquet or .jsonl"
        try:
            with _leaving_no_folder(place.folder), staged(place.folder, f".{place.stem}.probe"):
                pass
        except OSError as error:
            yield f"{place.folder.uri} cannot be written to: {error}; create it, or grant access to it"

    def _of(self, day: str) -> _Day:
        folder, name = posixpath.split(self.address.replace("{day}", day))
        form = next(form for form in FORMS if name.endswith(form))
        return _Day(open_folder(folder), name.removesuffix(form), form)

    def _write(self, scratch: Path, form: str, delivery: Delivery, source: "_Source") -> int:
        """Write the rows, and count them again in the file."""
        sent = 0
        with row_files.writing(scratch, form, delivery.schema, for_people=self._for_people) as write:
            for batch in source.read():
                write(batch)
                sent += batch.num_rows
        if (written := row_files.count(scratch, form)) != sent:
            raise RowsLostError(
                f"{delivery.pipeline}: export {delivery.export} of {delivery.day}: {sent} rows were read and {written} "
                "are in the file; nothing was exported: report this bug"
            )
        return sent

    def _switch(self, place: _Day, new: Manifest, delivery: Delivery) -> Delivered:
        """Replace the manifest, unless it shows this version or a newer one by now."""
        for attempt in itertools.count(1):
            shown, token = _read(place)
            if shown and (outcome := _refused(place, shown, delivery)):
                if new.file not in (shown.file, shown.previous):
                    place.folder.remove(new.file)
                return self._shown(place, shown, outcome)
            switched = new.model_copy(update={"previous": shown.file if shown else ""})
            try:
                place.folder.put_if(place.manifest, (switched.model_dump_json(indent=1) + "\n").encode(), token)
            except FileChangedError:
                if attempt == _SWITCHES:
                    raise
                continue
            if shown and shown.previous and shown.previous not in (switched.file, switched.previous):
                place.folder.remove(shown.previous)
            _remove_leftovers(place, switched)
            break
        return Delivered("exported", new.marker, new.bytes, _addresses(place, new.file))

    @staticmethod
    def _shown(place: _Day, shown: Manifest, outcome: Outcome) -> Delivered:
        """What stands instead of a delivery."""
        return Delivered(outcome, shown.marker, where=_addresses(place, shown.file))


def _addresses(place: _Day, file: str) -> tuple[str, ...]:
    return tuple(f"{place.folder.uri}/{name}" for name in (file, place.manifest))


def _refused(place: _Day, shown: Manifest, delivery: Delivery) -> Outcome | None:
    """Why a delivery is not shown in place of what is; None if it is, or if the valid file is gone or of another form.

    Raises:
        SinkRefusedError: another export writes to this place.
    """
    if (shown.pipeline, shown.export) != (delivery.pipeline, delivery.export):
        raise SinkRefusedError(
            f"{place.folder.uri}/{place.manifest} belongs to the export {shown.export} of {shown.pipeline}; export to "
            "another path, or remove it if that export is no longer there"
        )
    outcome = delivery.refused(shown.marker)
    if outcome != "unchanged" or delivery.replaces == "nothing":
        return outcome
    is_left = shown.file.endswith(place.form) and place.folder.version(shown.file) is not None
    return outcome if is_left else None


class _Source:
    """The rows of a delivery: an error while they are read is not one of the sink."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self.error: OSError | None = None

    def read(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._delivery.read()
        except OSError as error:
            self.error = error
            raise


def _remove_leftovers(place: _Day, shown: Manifest) -> None:
    """Remove what exports of this day that were killed have left behind, once nobody can be at work on it any more."""
    ours = re.compile(rf"{re.escape(place.stem)}\.\d+-[0-9a-f]{{8}}{re.escape(place.form)}")
    names = place.folder.children().files if place.folder.is_local else _names(place.folder, f"{place.stem}.")
    for name in names:
        if SCRATCH.fullmatch(name) or (ours.fullmatch(name) and name not in (shown.file, shown.previous)):
            found = place.folder.version(name)
            if found and found.modified < datetime.now(UTC) - _LEFT_BEHIND:
                place.folder.remove(name)


def _names(folder: Folder, prefix: str) -> list[str]:
    return [file.path for file in folder.list(prefix)]


@contextlib.contextmanager
def _leaving_no_folder(folder: Folder) -> Iterator[None]:
    """Remove the folders that are made meanwhile."""
    path = Path(folder.uri)
    made = [one for one in (path, *path.parents) if not one.exists()] if folder.is_local else []
    try:
        yield
    finally:
        for one in made:
            with contextlib.suppress(OSError):  # it has files of others by now
                one.rmdir()


def _read(place: _Day) -> tuple[Manifest | None, str | None]:
    """A day's manifest and its version token; None if there is none.

    Raises:
        SinkRefusedError: the file is not a manifest.
    """
    for attempt in itertools.count(1):
        found = place.folder.version(place.manifest)
        if found is None:
            return None, None
        try:
            with place.folder.open(place.manifest, found.token) as file:
                return Manifest.model_validate_json(file.read()), found.token
        except FileChangedError:
            if attempt == _SWITCHES:
                raise
        except ValidationError as error:
            raise SinkRefusedError(
                f"{place.folder.uri}/{place.manifest} is not a manifest of an export ({error.errors()[0]['msg']}); "
                "remove it, or export to another path"
            ) from error
    raise AssertionError("unreachable")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextlib.contextmanager
def _as_sink_errors(where: str, source: "_Source | None" = None) -> Iterator[None]:
    """Translate the store's errors: one that denies access is final, any other may pass; leave those of the source."""
    try:
        yield
    except OSError as error:
        if source and error is source.error:
            raise
        if isinstance(error, PermissionError):
            raise SinkRefusedError(f"{where}: {error}; grant access, then export again") from error
        raise SinkError(f"{where}: {error}; what was exported before stands") from error
