"""What of a pipeline's output nobody needs any more, and why: decided from listings. No storage, no Dagster, no clock.

A file of a table is *needed* while the newest version holds it, while some version held it that was the newest one
within the retention (a reader may be at it), and while it is young: a run takes over another one's finished shards
within `shards.REUSE_WITHIN`, and publishes them when it ends. A -> B -> A puts the same file back, so what a log once
removed may be in use again. Whatever cannot be known is a *problem*, and nothing of its kind goes.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal, get_args
from urllib.parse import unquote

from batch_scoring.config.spec import Retention
from batch_scoring.inference.bundle import MANIFEST
from batch_scoring.storage.folders import FileVersion
from batch_scoring.storage.shards import REUSE_WITHIN
from batch_scoring.storage.state import REFERENCES, Account, ModelInForce

Kind = Literal["superseded", "scratch", "reports", "samples", "quarantine", "models"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MEANING: Mapping[Kind, str] = {
    "superseded": "files of the tables that were replaced, or never published",
    "scratch": "what killed processes left half written, and steps told each other",
    "reports": "drift pages of old days",
    "samples": "rows of old days that drift was found with; the days' figures stay",
    "quarantine": "rows of old days, out of the table at once; their files go as superseded ones later",
    "models": "weights of models that no recent day was scored with; bundle.json stays",
}

LONGEST_RUN = timedelta(hours=6)
"""A run's maximum runtime where the instance names none."""
AFTER_A_RUN = timedelta(hours=1)
"""Between the moment in which a run should have ended, its publication tried again included, and its end."""
CLOCK_SLACK = timedelta(days=1)
"""By which a file may be newer than the present, and the machine's clock differ from the store's."""
SILENCE = timedelta(days=31)
"""Without a commit in any table, after which a machine's clock is doubted that has nothing but itself to go by."""

_SHARD = re.compile(r"dt=[^/]+/([^/_.][^/]*/)*[^/_.][^/]*\.parquet")
_PAGE = re.compile(r"reports/dt=(\d{4}-\d\d-\d\d)/[^/]+\.html")
_SAMPLE = re.compile(r"state/dt=(\d{4}-\d\d-\d\d)/sample\.parquet")
SCRATCH = re.compile(r"\.[0-9a-f]{32}\.tmp")
"""Names of `LocalFolder.scratch`."""


@dataclass(frozen=True)
class Limits:
    """Ages that something must exceed before it goes; None: it is kept for ever."""

    superseded: timedelta
    reports: timedelta | None
    quarantine: timedelta | None
    models: timedelta | None
    longest_run: timedelta = LONGEST_RUN
    samples: timedelta | None = None

    def of(self, kind: Kind) -> timedelta | None:
        """The age of a kind."""
        return self.superseded if kind == "scratch" else getattr(self, kind)


@dataclass(frozen=True)
class Expired:
    """A file that may go."""

    kind: Kind
    path: str
    """Relative to the pipeline's output."""
    size: int
    """Bytes."""
    why: str
    rows: int = 0
    """Of the quarantine."""


@dataclass(frozen=True)
class ActiveFile:
    """A file of a table's newest version."""

    day: str
    rows: int


@dataclass(frozen=True)
class TableFiles:
    """A table's files beside what its log says of them. The files must have been listed before the log was read."""

    name: str
    files: tuple[FileVersion, ...]
    active: Mapping[str, ActiveFile]
    """Of the newest version, by path."""
    recent: frozenset[str]
    """Paths that the commits within the retention added or removed."""
    newest_commit: datetime | None
    """UTC; by the store's clock. None without a table."""

    @property
    def needed(self) -> set[str]:
        """Paths that some version within the retention has; as the log writes them and as folders spell them."""
        return {form for path in (*self.active, *self.recent) for form in (path, unquote(path))}


@dataclass(frozen=True)
class Plan:
    """What may go."""

    now: datetime
    limits: Limits
    expired: tuple[Expired, ...] = ()
    problems: tuple[str, ...] = ()
    """Why nothing of some kind is among it."""
    doubts: tuple[str, ...] = ()
    """Why the clock cannot be trusted, and with it the whole plan."""

    def of(self, *kinds: Kind) -> list[Expired]:
        """What may go of some kinds."""
        return [file for file in self.expired if file.kind in kinds]

    @property
    def totals(self) -> "dict[Kind, Total]":
        """Counts and bytes of every kind, in the order of `KINDS`."""
        return {kind: Total.of(self.of(kind)) for kind in KINDS}


@dataclass(frozen=True)
class Total:
    """A kind's figures."""

    files: int = 0
    bytes: int = 0
    rows: int = 0
    places: Mapping[str, int] = field(default_factory=dict)
    """Files by folder, below the output and without days."""

    @classmethod
    def of(cls, files: Sequence[Expired]) -> "Total":
        """Add up."""
        places: dict[str, int] = {}
        for file in files:
            place = "/".join(part for part in file.path.split("/")[:-1] if "=" not in part) or "."
            places[place] = places.get(place, 0) + 1
        return cls(len(files), sum(file.size for file in files), sum(file.rows for file in files), places)


def limits_of(settings: Retention, longest_run: timedelta = LONGEST_RUN) -> Limits:
    """The ages that a spec asks for; a superseded file outlives every run that may have found it, however long."""
    return Limits(
        superseded=max(timedelta(days=settings.superseded_days), REUSE_WITHIN + longest_run + AFTER_A_RUN),
        reports=_days(settings.reports_days),
        samples=_days(settings.samples_days),
        quarantine=_days(settings.quarantine_days),
        models=_days(settings.models_days),
        longest_run=longest_run,
    )


def _days(count: int | None) -> timedelta | None:
    return None if count is None else timedelta(days=count)


def superseded(table: TableFiles, limits: Limits, now: datetime) -> list[Expired]:
    """A table's files that no version within the retention has and no run can take over any more.

    Only Parquet files in the days' folders: the log, and what somebody else has put there, is left alone.
    """
    needed, before = table.needed, now - limits.superseded
    return [
        Expired("superseded", f"tables/{table.name}/{file.path}", file.size, f"unused since before {before:%Y-%m-%d}")
        for file in table.files
        if _SHARD.fullmatch(file.path) and file.modified < before and file.path not in needed
    ]


def scratch(files: Iterable[FileVersion], limits: Limits, now: datetime) -> list[Expired]:
    """Files that a process was writing when it died. `files`: by their paths in the output."""
    before = now - limits.superseded
    return [
        Expired("scratch", file.path, file.size, f"written {file.modified:%Y-%m-%d}, never finished")
        for file in files
        if SCRATCH.fullmatch(file.path.rsplit("/", 1)[-1]) and file.modified < before
    ]


def references(files: Iterable[FileVersion], limits: Limits, now: datetime) -> list[Expired]:
    """What the steps of old runs told each other. `files`: by their paths in the output."""
    return [
        Expired("scratch", file.path, file.size, f"of a run of {file.modified:%Y-%m-%d}")
        for file in files
        if file.path.startswith(f"{REFERENCES}/")
        and file.path.endswith(".json")
        and file.modified < now - limits.superseded
    ]


def old_pages(files: Iterable[FileVersion], limits: Limits, now: datetime) -> list[Expired]:
    """Drift pages of days, drawn long enough ago; the months' pages stay. `files`: by their paths in the output."""
    return _of_old_days("reports", _PAGE, files, limits, now)


def old_samples(files: Iterable[FileVersion], limits: Limits, now: datetime) -> list[Expired]:
    """Samples of days, taken long enough ago; the documents beside them stay. `files`: by their paths in the output."""
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


def old_quarantine(table: TableFiles, limits: Limits, now: datetime) -> list[Expired]:
    """Files of the quarantine's newest version whose day is old and which were written long enough ago.

    Those that a run of today wrote for a day of last year are new: somebody is about to look at them.
    """
    if limits.quarantine is None:
        return []
    there = {file.path: file for file in table.files}
    return [
        Expired("quarantine", f"tables/{table.name}/{path}", there[path].size, f"rows of {file.day}", file.rows)
        for path, file in sorted(table.active.items())
        if path in there and _is_past(file.day, there[path].modified, limits.quarantine, now)
    ]


def old_models(
    copies: Mapping[str, Sequence[FileVersion]],
    in_force: ModelInForce | None,
    delivered: str | None,
    accounts: Iterable[Account],
    limits: Limits,
    now: datetime,
) -> list[Expired]:
    """Weights and data of models that scored no day within the retention.

    `bundle.json` stays: one version is one model, and it says which one. The model in force and the one that the spec
    names stay whole; just after a promotion all do, since a run may still be reading the model before.

    Args:
        copies: the files of each bundle in the state, by sha256, with their paths in the output.
        in_force: the model in force, if there is one.
        delivered: sha256 of the bundle that the spec names.
        accounts: of predictions, of all days.
        limits: the ages.
        now: the store's time.
    """
    if limits.models is None or in_force is None or in_force.resolved_at > now - limits.longest_run - AFTER_A_RUN:
        return []
    used = {
        account.model_sha256
        for account in accounts
        if not _is_past(account.day, account.finished_at, limits.models, now)
    }
    kept = {in_force.sha256, delivered, *used}
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
    """Reasons to believe that the present is another time than it seems: then ages mean nothing.

    Args:
        now: by the store's clock.
        machine: by this machine's clock.
        files: of the tables, by the store's clock.
        commits: the newest one of each table.
        store_has_a_clock: whether the store is not this machine; else its clock is compared with the newest commit.
    """
    found = []
    newest = max([*(file.modified for file in files), *(commit for commit in commits if commit)], default=None)
    last = max((commit for commit in commits if commit), default=None)
    if newest and newest > now + CLOCK_SLACK:
        found.append(f"a file is from {_time(newest)}, which is to come: it is {_time(now)}")
    if abs(machine - now) > CLOCK_SLACK:
        found.append(f"this machine's clock says {_time(machine)}, the store's {_time(now)}")
    if last and not store_has_a_clock and now - last > SILENCE:
        found.append(f"nothing was published for {(now - last).days} days, since {_time(last)}: it is {_time(now)}")
    return found


def _is_past(day: str, written: datetime, age: timedelta, now: datetime) -> bool:
    """Whether a day lies so long ago, in every time zone, and what is of it was written so long ago."""
    try:
        ended = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC) + timedelta(days=1.5)
    except ValueError:  # no day of ours
        return False
    return ended < now - age and written < now - age


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
