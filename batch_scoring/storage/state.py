"""State of a pipeline: small JSON documents beside its tables, each replaced as a whole.

    state/dt=…/input.json                 the landing files that raw_input pinned
    state/dt=…/validated_features.json    what the step published: rows read, rows written, files committed
    state/dt=…/predictions.json
    state/dt=…/decisions.json             only with decisions in the spec
    state/dt=…/exports/<name>.json        the receipt of an export: the version of the day that its sink shows
    state/dt=…/drift.json                 the distance of the day and the trailing days from the model's reference
    state/dt=…/sample.parquet             a sample of the day's rows, see samples.py
    state/dt=…/checks/<asset>.json        the day's check results of an asset, including days that were not published
    state/failures/<UTC time>-<run>.json  a failed run: which day, why, and the first line of the error
    state/steps/<run>/…json               values passed between an asset's steps, see json_io_manager.py
    state/model.json                      the active model
    state/models/<sha256>/                its bundle

Storage is the only source of truth: steps read here what earlier steps did, never from the Dagster instance.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from batch_scoring.errors import EntryError, FailureClass, StateError
from batch_scoring.runtime.usage import Usage
from batch_scoring.storage.folders.folder import FileVersion, Folder

REFERENCES = "state/steps"
"""Folder of values passed between steps, below the pipeline's output."""

FAILURE_RECORDS = "state/failures"
"""Folder of the records of failed runs, below the pipeline's output."""

MOST_UNPUBLISHED = 100
"""Days without a document that are passed over in search of the newest ones that have it."""

StepName = Literal["validated_features", "predictions", "decisions"]

Horizon = Literal["day", "trailing", "missing", "repeated"]
"""What was compared: the day's values, those of the trailing days, the fraction of the day's values that is missing, or
that of the most frequent value."""


class Document(BaseModel):
    """A JSON document; immutable."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class LandingFile(Document):
    """A pinned version of an input file."""

    path: str
    """Relative to the landing folder."""
    token: str
    size: int
    """Bytes."""
    modified: datetime
    rows: int
    columns: dict[str, str]
    """Name and Arrow type of each column."""
    content: str | None = None
    """sha256 of the content, for local files, whose token changes more often than their content; S3 has the ETag."""


class DayInput(Document):
    """The pinned input of a day."""

    day: str
    fingerprint: str
    files: tuple[LandingFile, ...]
    run_id: str
    pinned_at: datetime

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(file.rows for file in self.files)


class ActiveModel(Document):
    """The active model, with which days are scored from now on."""

    name: str
    version: str
    sha256: str
    source: str
    """Where the bundle was delivered."""
    run_id: str
    resolved_at: datetime


class ShardStats(Document):
    """Statistics of a shard: what happened to its input rows; stored in the footer of its Parquet file."""

    digest: str
    """Digest of everything that the rows depend on; the file's name begins with it."""
    source: str
    """The landing file and its first row, or the digest of the feature shard."""
    run_id: str
    rows_in: int
    rows: int
    """Rows in the file."""
    quarantined: dict[str, dict[str, int]] = {}
    """Rows by stage and by reason (rule and column)."""
    missing_identity: int = 0
    """Sum of input row identities less that of accepted and quarantined rows, modulo 2**64: 0 if no row is lost."""
    keys: int = 0
    """Sum of the hashes of the file's keys, modulo 2**64."""
    missing: dict[str, int] = {}
    """Features only: missing values by column."""
    categories: dict[str, dict[str, int]] = {}
    """Features only: rows by categorical column and value (the most frequent values of each)."""
    sums: dict[str, float] = {}
    """Sum of each score column."""
    squares: dict[str, float] = {}
    """Sum of the squares of each score column."""
    histogram: tuple[int, ...] = ()
    """Rows by score, in bins of equal width from 0 to 1: of the head's `telling_column`, if it is a probability."""
    classes: dict[str, int] = {}
    """Rows by prediction; with several labels, a row counts for each."""
    unknown: dict[str, dict[str, int]] = {}
    """Rows by categorical column and value unknown to the model (the most frequent values of each)."""
    actions: dict[str, int] = {}
    """Decisions only: rows by action."""
    reasons: dict[str, int] = {}
    """Decisions only: rows by reason."""
    arms: dict[str, dict[str, int]] = {}
    """Decisions only: rows by action and arm, for actions with a hold-out."""
    groups: dict[str, dict[str, dict[str, int]]] = {}
    """Decisions only: rows with an action, by action, capped column and value."""
    not_probabilities: int = 0
    """Scored rows whose scores are not finite, outside 0 … 1 or do not sum to 1."""
    quantiles_crossed: int = 0
    """Scored rows with a quantile below that of a lower level."""
    usage: Usage | None = None
    """What its rows took, from the end of the shard before it; None in documents older than this field."""

    @property
    def rows_quarantined(self) -> int:
        """Rows of all stages and reasons."""
        return sum(sum(reasons.values()) for reasons in self.quarantined.values())

    @property
    def is_balanced(self) -> bool:
        """Whether each input row is in the file or the quarantine, exactly once."""
        return self.rows_in == self.rows + self.rows_quarantined and not self.missing_identity


class CheckRecord(Document):
    """The result of a check for a day."""

    passed: bool
    observed: float | None = None
    """None if there was nothing to test."""
    message: str = ""
    stopped: bool = False
    """Whether this failure stopped the day, so that nothing was published."""


class DayChecks(Document):
    """The results of an asset's checks for a day, from its last run."""

    day: str
    run_id: str
    at: datetime
    checks: dict[str, CheckRecord]


class ColumnDrift(Document):
    """The comparison of a column with the reference."""

    column: str
    horizon: Horizon
    rows: int
    observed: float
    """Distance, or fraction of values."""
    threshold: float
    drifted: bool


class DayDrift(Document):
    """The distance of a day, and of the trailing days that end with it, from the model's reference."""

    day: str
    run_id: str
    model_sha256: str
    features: tuple[ColumnDrift, ...]
    predictions: tuple[ColumnDrift, ...]
    since: dict[str, str] = {}
    """First day since which the trailing days have drifted, for `features` and `predictions`."""


class PublishedPart(Document):
    """A day's part of one table, as published by a step."""

    transaction: int
    """Number of commits to this part by this step; Delta stores it as an application transaction."""
    version: int
    """The table's version, -1 if the table does not exist."""
    files: tuple[str, ...]
    """Active files, relative to the table."""
    bytes: int = 0
    created: int = 0
    """When the table was created, in milliseconds since 1970: one that was made anew counts transactions from 1 again.
    0 in documents older than this field."""


class PublishedDay(Document):
    """What a step published for a day, recorded after its commit."""

    pipeline: str
    day: str
    step: StepName
    run_id: str
    finished_at: datetime
    fingerprint: str
    """Fingerprint of the landing files from which the rows come."""
    code: str
    """Digest of the code and settings that the rows depend on."""
    features_code: str | None = None
    """Predictions only: digest of the code and settings of the features that were scored."""
    followed_by: tuple[str, ...] = ()
    """Predictions only: the steps that had to follow for the day to be up to date, when it was scored."""
    model_version: str | None = None
    model_sha256: str | None = None
    shards: tuple[ShardStats, ...]
    table: PublishedPart
    quarantine: PublishedPart = PublishedPart(transaction=0, version=-1, files=())
    """Empty for decisions, which reject no row."""
    seconds: float = 0.0
    """Wall time from the start of the step to its commit; 0 in documents older than this field."""
    overhead: Usage | None = None
    """What the step's processes used besides the shards: model, plan, checks, commit; None in older documents."""

    @property
    def usages(self) -> tuple[Usage, ...] | None:
        """What was measured of the day: its overhead, then each shard; None if any of it was not.

        A shard that an earlier run has finished counts with what it took then.
        """
        found = [part for part in (self.overhead, *(shard.usage for shard in self.shards)) if part is not None]
        return tuple(found) if len(found) == 1 + len(self.shards) else None

    @property
    def usage(self) -> Usage | None:
        """All that the day took; None if any of it was not measured."""
        return None if self.usages is None else sum(self.usages, Usage())

    @property
    def rows_per_second(self) -> float | None:
        """Speed for the rows that this run processed itself; None if it reused every shard, or the time is unknown."""
        worked = sum(shard.rows_in for shard in self.shards if shard.run_id == self.run_id)
        return worked / self.seconds if worked and self.seconds else None

    @property
    def rows_in(self) -> int:
        """Input rows of the step."""
        return sum(shard.rows_in for shard in self.shards)

    @property
    def rows(self) -> int:
        """Rows in the step's table."""
        return sum(shard.rows for shard in self.shards)

    @property
    def rows_quarantined(self) -> int:
        """Rows in the step's part of the quarantine."""
        return sum(shard.rows_quarantined for shard in self.shards)

    def moments(self, column: str) -> "Moments":
        """Return the mean and standard deviation of a score column."""
        return moments(self.shards, column)


class ExportReceipt(Document):
    """What the sink of an export shows of a day: a copy of its marker, written after each export."""

    pipeline: str
    export: str
    day: str
    of: str
    """The exported table: predictions or decisions."""
    created: int
    """When that table was created, in milliseconds since 1970."""
    transaction: int
    """Number of commits to the day in that table."""
    files: tuple[str, ...]
    """The day's files of that version, relative to the table."""
    settings: str
    """Digest of the export's section of the spec; a change alone exports nothing again."""
    place: str = ""
    """Digest of where the sink is, as the spec names it; empty in receipts from before it was written down."""
    gives_way_to: str = ""
    """The step that an export was about to show in its place; whether it is shown by now, only the sink knows."""
    outcome: Literal["exported", "unchanged", "superseded", "kept"]
    """kept: the day was corrected, and `corrections: keep` leaves what was exported."""
    rows: int
    """Rows that the sink shows."""
    sent: int | None = None
    """Rows that this export has sent; None if it sent none, as the sink showed the day already."""
    bytes: int = 0
    where: tuple[str, ...] = ()
    """Addresses of what was written, without user names and passwords."""
    run_id: str
    began_at: datetime
    finished_at: datetime


class FailureRecord(Document):
    """A failed run, recorded by the step that failed, or later if its process is gone; never changed afterwards."""

    run_id: str
    day: str
    """Empty for a run about no day: of a report, of retention."""
    step: str
    """The asset that failed; empty if the run ended before its first step, or between two."""
    failure_class: FailureClass
    at: AwareDatetime
    """When it failed, in UTC."""
    message: str
    """The first line of the error, shortened."""
    export: str = ""
    """Name of the export that failed; empty for any other asset."""
    began: AwareDatetime | None = None
    """When the run began, in UTC: `at` of a run whose process is gone is only when that was noticed."""


class Moments(NamedTuple):
    """Moments of a score column over a day's rows; NaN if there are no rows."""

    rows: int
    mean: float
    deviation: float
    """Standard deviation."""


def moments(shards: Iterable[ShardStats], column: str) -> Moments:
    """Return the mean and standard deviation of a score column, from the sums in the shard statistics."""
    known = list(shards)
    rows = sum(shard.rows for shard in known)
    if not rows:
        return Moments(0, math.nan, math.nan)
    mean = sum(shard.sums.get(column, 0.0) for shard in known) / rows
    square = sum(shard.squares.get(column, 0.0) for shard in known) / rows
    return Moments(rows, mean, math.sqrt(max(0.0, square - mean**2)))


AnyDocument = TypeVar("AnyDocument", bound=Document)


class State:
    """The state folder of one pipeline."""

    def __init__(self, output: Folder) -> None:
        """`output`: the pipeline's output folder."""
        self._folder = output.subfolder("state")

    def day_input(self, day: str) -> DayInput:
        """Return the day's pinned input.

        Raises:
            StateError: raw_input has not run for the day.
        """
        found = self._read(f"dt={day}/input.json", DayInput)
        if found is None:
            raise StateError(f"{day} has no pinned input in {self._folder.uri}; run raw_input for this day first")
        return found

    def day_inputs(self, days: Sequence[str]) -> list[DayInput]:
        """Return the pinned inputs of those days that have one; skip unreadable ones, which their own runs report."""
        return self._of_days(days, "input.json", DayInput, or_none=True)

    def put_day_input(self, pinned: DayInput) -> None:
        """Replace the day's pinned input."""
        self._write(f"dt={pinned.day}/input.json", pinned)

    def published_day(self, step: StepName, day: str) -> PublishedDay | None:
        """Return what the step published for the day; None if it never has."""
        return self._read(f"dt={day}/{step}.json", PublishedDay)

    def published_days(self, step: StepName) -> list[PublishedDay]:
        """Return what the step published for all days, by day."""
        paths = (file.path.split("/") for file in self._folder.list("dt="))
        days = [folder.removeprefix("dt=") for folder, *name in paths if name == [f"{step}.json"]]
        return self._of_days(days, f"{step}.json", PublishedDay)

    def newest_published_days(self, step: StepName, count: int, wanted: Callable[[str], bool]) -> list[PublishedDay]:
        """Return what the step published for the newest days, newest first; skip unreadable documents.

        At most `MOST_UNPUBLISHED` days without a document are passed over: the years before a step was added have none.

        Args:
            step: whose documents.
            count: how many days at most.
            wanted: which days count, by their date.
        """
        found: list[PublishedDay] = []
        left = filter(wanted, self.newest_days())
        for size in (count, MOST_UNPUBLISHED):
            if len(found) < count:
                found += self.published_days_of(step, list(itertools.islice(left, size)))
        return found[:count]

    def newest_days(self) -> list[str]:
        """Return the days that have documents, newest first."""
        folders = sorted(self._folder.children().folders, reverse=True)
        return [name.removeprefix("dt=") for name in folders if name.startswith("dt=")]

    def published_days_of(self, step: StepName, days: Sequence[str]) -> list[PublishedDay]:
        """Return what the step published for the given days; skip unreadable documents, which their own runs report."""
        return self._of_days(days, f"{step}.json", PublishedDay, or_none=True)

    def put_published_day(self, published_day: PublishedDay) -> None:
        """Replace the record of what a step published for its day."""
        self._write(f"dt={published_day.day}/{published_day.step}.json", published_day)

    def checks(self, asset: str, day: str) -> DayChecks | None:
        """Return the results of the asset's checks for the day; None if they never ran."""
        return self._read(f"dt={day}/checks/{asset}.json", DayChecks)

    def checks_of(self, asset: str, days: Sequence[str]) -> list[DayChecks]:
        """Return the results of the asset's checks for those of the days on which they ran."""
        return self._of_days(days, f"checks/{asset}.json", DayChecks, or_none=True)

    def put_checks(self, asset: str, said: DayChecks) -> None:
        """Replace the results of the asset's checks for their day."""
        self._write(f"dt={said.day}/checks/{asset}.json", said)

    def receipt(self, export: str, day: str) -> ExportReceipt | None:
        """Return the receipt of an export for the day; None if there is none."""
        return self._read(f"dt={day}/exports/{export}.json", ExportReceipt)

    def receipts_of(self, export: str, days: Sequence[str]) -> list[ExportReceipt]:
        """Return the receipts of an export for those of the days that have one; skip unreadable ones."""
        return self._of_days(days, f"exports/{export}.json", ExportReceipt, or_none=True)

    def receipt_token(self, export: str, day: str) -> str | None:
        """Return the version token of the receipt of an export for the day; None if there is none."""
        found = self._folder.version(f"dt={day}/exports/{export}.json")
        return found.token if found else None

    def put_receipt(self, receipt: ExportReceipt, token: str | None) -> None:
        """Replace the receipt of an export for its day that has a version token; None: write the first one.

        Raises:
            FileChangedError: another one was written since; it stays.
        """
        self._folder.put_if(f"dt={receipt.day}/exports/{receipt.export}.json", _json(receipt), token)

    def failures_since(self, when: datetime) -> list[FailureRecord]:
        """Return the failed runs since a time, oldest first, each once; skip unreadable records.

        One listing, from that time on. Of two records of a run, which two of its steps may write, the last counts.
        """
        found = self._listed(self._failure_files(when), FailureRecord)
        by_run = {record.run_id: record for record in sorted(found, key=lambda record: record.at)}
        return sorted(by_run.values(), key=lambda record: record.at)

    def has_failure(self, run_id: str, since: datetime) -> bool:
        """Whether a failure of a run is recorded; `since`: a time before it failed."""
        return any(file.path.endswith(f"-{run_id}.json") for file in self._failure_files(since))

    def put_failure(self, record: FailureRecord) -> None:
        """Record a failed run."""
        self._write(f"failures/{_sortable(record.at)}Z-{record.run_id}.json", record)

    def _failure_files(self, since: datetime) -> list[FileVersion]:
        return self._folder.list("failures/", f"failures/{_sortable(since)}")

    def drift(self, day: str) -> DayDrift | None:
        """Return the day's comparison with the reference; None if there is none."""
        return self._read(f"dt={day}/drift.json", DayDrift)

    def drifts_of(self, days: Sequence[str]) -> list[DayDrift]:
        """Return the comparisons of those of the days that have one; skip unreadable ones."""
        return self._of_days(days, "drift.json", DayDrift, or_none=True)

    def put_drift(self, drift: DayDrift) -> None:
        """Replace a day's comparison."""
        self._write(f"dt={drift.day}/drift.json", drift)

    def model(self) -> ActiveModel:
        """Return the active model.

        Raises:
            StateError: no model has been resolved yet.
        """
        found = self.model_or_none()
        if found is None:
            raise StateError(f"no model is active in {self._folder.uri}; run the asset model first")
        return found

    def model_or_none(self) -> ActiveModel | None:
        """Return the active model; None before the first run."""
        return self._read("model.json", ActiveModel)

    def ensure_readable(self) -> None:
        """Raise if the state cannot be read: a listing would be empty then, as if nothing had ever happened.

        Raises:
            OSError: what stands in the way; nothing is raised before the first run.
        """
        with contextlib.suppress(FileNotFoundError):
            self._folder.read("model.json")

    def put_model(self, model: ActiveModel) -> None:
        """Replace the active model."""
        self._write("model.json", model)

    @property
    def models(self) -> Folder:
        """The folder of all bundles that were ever active, one subfolder per sha256."""
        return self._folder.subfolder("models")

    def _of_days(
        self, days: Sequence[str], name: str, kind: type[AnyDocument], *, or_none: bool = False
    ) -> list[AnyDocument]:
        """Return the documents with a name, for the days that have it. `or_none`: skip damaged ones."""
        return self._at([f"dt={day}/{name}" for day in days], kind, or_none=or_none)

    def _listed(self, files: Sequence[FileVersion], kind: type[AnyDocument]) -> list[AnyDocument]:
        """Return listed documents; skip damaged ones, and those that were removed since."""
        return self._at([file.path for file in files], kind, or_none=True)

    def _at(self, paths: Sequence[str], kind: type[AnyDocument], *, or_none: bool) -> list[AnyDocument]:
        found: list[AnyDocument] = []
        for path, content in zip(paths, self._each(paths, or_none=or_none), strict=True):
            if content is not None:
                with contextlib.suppress(*([StateError] if or_none else [])):
                    found.append(self._parsed(path, content, kind))
        return found

    def _each(self, paths: Sequence[str], *, or_none: bool) -> list[bytes | None]:
        """Return the content of documents, None if one does not exist or, with `or_none` on a disk, cannot be read."""
        try:
            return self._folder.read_each(paths)
        except OSError:
            if not or_none or not self._folder.is_local:
                raise
        return [self._content_or_none(path) for path in paths]

    def _content_or_none(self, path: str) -> bytes | None:
        try:
            return self._folder.read(path)
        except OSError:
            return None

    def _read(self, path: str, kind: type[AnyDocument]) -> AnyDocument | None:
        try:
            return self._parsed(path, self._folder.read(path), kind)
        except FileNotFoundError:
            return None
        except EntryError as error:
            raise StateError(f"{error}; then run the day again") from error

    def _parsed(self, path: str, content: bytes, kind: type[AnyDocument]) -> AnyDocument:
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            raise StateError(
                f"{self._folder.uri}/{path} is damaged: {error.errors()[0]['msg']}; remove it and run the day again"
            ) from error

    def _write(self, path: str, document: Document) -> None:
        self._folder.put(path, _json(document))


def _sortable(moment: datetime) -> str:
    """A time as it begins the name of a document, so that a listing is in order and can begin at a time."""
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%S.%f}"


def _json(document: Document) -> bytes:
    return (document.model_dump_json(indent=1) + "\n").encode()
