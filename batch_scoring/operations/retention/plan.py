"""Retention plan: which files of a pipeline's output are no longer needed, and why. Pure: no storage, Dagster or clock.

A file of a table is *needed* while the newest version contains it, while a version that was the newest within the
retention contains it (a reader may be using it), and while it is young: a run reuses another run's finished shards
within `shards.REUSE_WITHIN`, and publishes them when it ends. A -> B -> A restores the same file, so what the log once
removed may be in use again. Whatever cannot be determined is a *problem*, and nothing of its kind is deleted.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal, get_args
from urllib.parse import unquote

from batch_scoring.config.spec import Retention
from batch_scoring.inference.bundle import MANIFEST
from batch_scoring.storage.folders.folder import FileVersion
from batch_scoring.storage.shards import REUSE_WITHIN
from batch_scoring.storage.state import FAILURE_RECORDS, REFERENCES, ActiveModel, PublishedDay

Kind = Literal[
    "superseded", "scratch", "reports", "samples", "quarantine", "models", "features", "decisions", "failures"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
MEANING: Mapping[Kind, str] = {
    "superseded": "files of the tables that were replaced, or never published",
    "scratch": "files that killed processes left unfinished, and values passed between steps",
    "reports": "pages of old days, of their drift and their decisions",
    "samples": "rows of old days that drift was found with; the days' figures stay",
    "quarantine": "rows of old days, out of the table at once; their files go as superseded ones later",
    "models": "weights of models that no recent day was scored with; bundle.json stays",
    "features": "validated rows of old days, with their attributes; like rows of the quarantine",
    "decisions": "decisions of old days; like rows of the quarantine",
    "failures": "records of failed runs, whatever the spec says",
}
OLD_ROWS: Mapping[str, Kind] = {
    "quarantine": "quarantine",
    "validated_features": "features",
    "decisions": "decisions",
}
"""Tables whose old rows are removed, with the kind that they are."""

DEFAULT_MAX_RUNTIME = timedelta(hours=6)
"""Maximum runtime of a run where the instance sets none."""
AFTER_A_RUN = timedelta(hours=1)
"""Margin after a run's maximum runtime, retries of its publication included."""
FAILURES_FOR = timedelta(days=90)
"""Age up to which the records of failed runs are kept."""
CLOCK_SLACK = timedelta(days=1)
"""How far a file may be in the future, and the machine's clock may differ from the store's."""
DOUBTFUL_SILENCE = timedelta(days=31)
"""Time without a commit in any table after which a machine's clock is doubted, if the store has no other."""

_SHARD = re.compile(r"dt=[^/]+/([^/_.][^/]*/)*[^/_.][^/]*\.parquet")
_PAGE = re.compile(r"reports/dt=(\d{4}-\d\d-\d\d)/[^/]+\.html")
_SAMPLE = re.compile(r"state/dt=(\d{4}-\d\d-\d\d)/sample\.parquet")
SCRATCH = re.compile(r"\.[0-9a-f]{32}\.tmp")
"""Names of the scratch files of `LocalFolder.scratch`."""


@dataclass(frozen=True)
class Limits:
    """Ages above which files are deleted; None: they are kept for ever."""

    superseded: timedelta
    reports: timedelta | None
    quarantine: timedelta | None
    models: timedelta | None
    longest_run: timedelta = DEFAULT_MAX_RUNTIME
    samples: timedelta | None = None
    features: timedelta | None = None
    decisions: timedelta | None = None
    failures: timedelta = FAILURES_FOR

    def of(self, kind: Kind) -> timedelta | None:
        """The limit of a kind."""
        return self.superseded if kind == "scratch" else getattr(self, kind)


@dataclass(frozen=True)
class Expired:
    """A file that may be deleted."""

    kind: Kind
    path: str
    """Relative to the pipeline's output."""
    size: int
    """Bytes."""
    why: str
    rows: int = 0
    """Rows of the table in it, if it is one whose old rows are removed."""


@dataclass(frozen=True)
class ActiveFile:
    """A file of a table's newest version."""

    day: str
    rows: int


@dataclass(frozen=True)
class TableFiles:
    """A table's files and their entries in its log. The files must have been listed before the log was read."""

    name: str
    files: tuple[FileVersion, ...]
    active: Mapping[str, ActiveFile]
    """Of the newest version, by path."""
    recent: frozenset[str]
    """Paths that the commits within the retention added or removed."""
    newest_commit: datetime | None
    """UTC, by the store's clock; None without a table."""

    @property
    def needed(self) -> set[str]:
        """Paths in any version within the retention, in the spelling of the log and of folders."""
        return {form for path in (*self.active, *self.recent) for form in (path, unquote(path))}


@dataclass(frozen=True)
class RetentionPlan:
    """The files that may be deleted."""

    now: datetime
    limits: Limits
    expired: tuple[Expired, ...] = ()
    problems: tuple[str, ...] = ()
    """Why some kinds are missing."""
    doubts: tuple[str, ...] = ()
    """Why the clock, and with it the whole plan, cannot be trusted."""

    def of(self, *kinds: Kind) -> list[Expired]:
        """The files of some kinds."""
        return [file for file in self.expired if file.kind in kinds]

    @property
    def totals(self) -> "dict[Kind, KindTotal]":
        """Counts and bytes of every kind, in the order of `KINDS`."""
        return {kind: KindTotal.of(self.of(kind)) for kind in KINDS}


@dataclass(frozen=True)
class KindTotal:
    """A kind's figures."""

    files: int = 0
    bytes: int = 0
    rows: int = 0
    places: Mapping[str, int] = field(default_factory=dict)
    """Files by folder, below the output and without days."""

    @classmethod
    def of(cls, files: Sequence[Expired]) -> "KindTotal":
        """Sum up files."""
        places: dict[str, int] = {}
        for file in files:
            place = "/".join(part for part in file.path.split("/")[:-1] if "=" not in part) or "."
            places[place] = places.get(place, 0) + 1
        return cls(len(files), sum(file.size for file in files), sum(file.rows for file in files), places)


def limits_of(settings: Retention, longest_run: timedelta = DEFAULT_MAX_RUNTIME) -> Limits:
    """Limits by the spec; a superseded file outlives every run that may have found it."""
    return Limits(
        superseded=max(timedelta(days=settings.superseded_days), REUSE_WITHIN + longest_run + AFTER_A_RUN),
        reports=_days(settings.reports_days),
        samples=_days(settings.samples_days),
        quarantine=_days(settings.quarantine_days),
        models=_days(settings.models_days),
        features=_days(settings.features_days),
        decisions=_days(settings.decisions_days),
        longest_run=longest_run,
    )


def _days(count: int | None) -> timedelta | None:
    return None if count is None else timedelta(days=count)


def superseded(table: TableFiles, limits: Limits, now: datetime) -> list[Expired]:
    """A table's files that are in no version within the retention and that no run can reuse any more.

    Only Parquet files in the days' folders: the log and unexpected objects are left alone.
    """
    needed, before = table.needed, now - limits.superseded
    return [
        Expired("superseded", f"tables/{table.name}/{file.path}", file.size, f"unused since before {before:%Y-%m-%d}")
        for file in table.files
        if _SHARD.fullmatch(file.path) and file.modified < before and file.path not in needed
    ]


def scratch(files: Iterable[FileVersion], limits: Limits, now: datetime) -> list[Expired]:
    """Files that a process was writing when it died. `files`: with paths relative to the output."""
    before = now - limits.superseded
    return [
        Expired("scratch", file.path, file.size, f"written {file.modified:%Y-%m-%d}, never finished")
        for file in files
        if SCRATCH.fullmatch(file.path.rsplit("/", 1)[-1]) and file.modified < before
    ]


def references(files: Iterable[FileVersion], limits: Limits, now: datetime) -> list[Expired]:
    """Values passed between steps of old runs. `files`: with paths relative to the output."""
    return [
        Expired("scratch", file.path, file.size, f"of a run of {file.modified:%Y-%m-%d}")
        for file in files
        if file.path.startswith(f"{REFERENCES}/")
        and file.path.endswith(".json")
        and file.modified < now - limits.superseded
    ]


def old_failures(files: Iterable[FileVersion], limits: Limits, now: datetime) -> list[Expired]:
    """Records of failed runs that are too old for statistics. `files`: with paths relative to the output."""
    return [
        Expired("failures", file.path, file.size, f"of a run that failed {file.modified:%Y-%m-%d}")
        for file in files
        if file.path.startswith(f"{FAILURE_RECORDS}/")
        and file.path.endswith(".json")
        and file.modified < now - limits.failures
    ]


def old_pages(files: Iterable[FileVersion], limits: Limits, now: datetime) -> list[Expired]:
    """Old drift pages of days; the months' pages stay. `files`: with paths relative to the output."""
    return _of_old_days("reports", _PAGE, files, limits, now)


def old_samples(files: Iterable[FileVersion], limits: Limits, now: datetime) -> list[Expired]:
    """Old samples of days; the documents beside them stay. `files`: with paths relative to the output."""
    return _of_old_days("samples", _SAMPLE, files, limits, now)


def _of_old_days(
    kind: Kind, pattern: re.Pattern[str], files: Iterable[FileVersion], limits: Limits, now: datetime
) -> list[Expired]:
    age = limits.of(kind)
    if age is None:
        return []
    return [
        Expired(kind, file.path, file.size, f"of {found[1]}")
        for file in files
        if (found := pattern.fullmatch(file.path)) and _is_past(found[1], file.modified, age, now)
    ]


def old_rows(table: TableFiles, limits: Limits, now: datetime) -> list[Expired]:
    """Files of a table's newest version whose day is old and which were written long ago.

    A file written today for a day of last year is new: nobody has examined its rows yet.
    """
    kind = OLD_ROWS.get(table.name)
    age = limits.of(kind) if kind else None
    if kind is None or age is None:
        return []
    there = {file.path: file for file in table.files}
    return [
        Expired(kind, f"tables/{table.name}/{path}", there[path].size, f"rows of {file.day}", file.rows)
        for path, file in sorted(table.active.items())
        if path in there and _is_past(file.day, there[path].modified, age, now)
    ]


def old_models(
    copies: Mapping[str, Sequence[FileVersion]],
    active: ActiveModel | None,
    delivered: str | None,
    published_days: Iterable[PublishedDay],
    limits: Limits,
    now: datetime,
) -> list[Expired]:
    """Weights and data of models that scored no day within the retention.

    `bundle.json` stays, as it identifies the model of a version. The active model and the one that the spec names stay
    complete; shortly after a promotion all do, as a run may still be reading the previous model.

    Args:
        copies: the files of each bundle in the state, by sha256, with paths relative to the output.
        active: the active model, if there is one.
        delivered: sha256 of the bundle that the spec names.
        published_days: of predictions, of all days.
        limits: the ages.
        now: the store's time.
    """
    if limits.models is None or active is None or active.resolved_at > now - limits.longest_run - AFTER_A_RUN:
        return []
    used = {
        published_day.model_sha256
        for published_day in published_days
        if not _is_past(published_day.day, published_day.finished_at, limits.models, now)
    }
    kept = {active.sha256, delivered, *used}
    return [
        Expired("models", file.path, file.size, f"model {sha256[:12]}")
        for sha256, files in sorted(copies.items())
        if sha256 not in kept and max(file.modified for file in files) < now - limits.models
        for file in files
        if not file.path.endswith(f"/{MANIFEST}") and not SCRATCH.fullmatch(file.path.rsplit("/", 1)[-1])
    ]


def doubts(
    now: datetime,
    machine: datetime,
    files: Iterable[FileVersion],
    commits: Iterable[datetime | None],
    *,
    store_has_a_clock: bool,
) -> list[str]:
    """Reasons to distrust the clock: ages would then mean nothing.

    Args:
        now: by the store's clock.
        machine: by this machine's clock.
        files: of the tables, by the store's clock.
        commits: the newest one of each table.
        store_has_a_clock: whether the store has a clock of its own; else the newest commit is compared.
    """
    found = []
    newest = max([*(file.modified for file in files), *(commit for commit in commits if commit)], default=None)
    last = max((commit for commit in commits if commit), default=None)
    if newest and newest > now + CLOCK_SLACK:
        found.append(f"a file is from {_time(newest)}, which is in the future: it is {_time(now)}")
    if abs(machine - now) > CLOCK_SLACK:
        found.append(f"this machine's clock says {_time(machine)}, the store's {_time(now)}")
    if last and not store_has_a_clock and now - last > DOUBTFUL_SILENCE:
        found.append(f"nothing was published for {(now - last).days} days, since {_time(last)}: it is {_time(now)}")
    return found


def _is_past(day: str, written: datetime, age: timedelta, now: datetime) -> bool:
    """Whether both a day, in every time zone, and the time of writing are older than an age."""
    try:
        ended = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC) + timedelta(days=1.5)
    except ValueError:  # not a day
        return False
    return ended < now - age and written < now - age


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
