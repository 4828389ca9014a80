"""Probes of a pipeline's tables: readable logs, and the rows that the state counts for each day."""

import functools
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from batch_scoring.cli.doctor.probe import ProbeFinding, probe
from batch_scoring.config.days import ranges
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.publish import DayStep
from batch_scoring.daily.tables import TABLES
from batch_scoring.errors import StateError
from batch_scoring.runtime.printable import shell_word
from batch_scoring.storage.delta import TIMEOUT, Part, Table
from batch_scoring.storage.folders.folder import FileVersion, Folder
from batch_scoring.storage.state import PublishedDay, State, StepName

WRITING_STEPS: tuple[StepName, ...] = ("validated_features", "predictions", "decisions")
SETTLES = 2.0
"""Seconds between two reads that confirm a mismatch: a run writes its state a moment after its commit."""
IN_FLIGHT = TIMEOUT
"""Seconds after a commit within which the run may not have written its state yet: its next commit may take so long."""

_COMMIT = re.compile(r"^_delta_log/(\d{20})\.json$")
_CHECKPOINT = re.compile(r"^_delta_log/(\d{20})\.checkpoint.*\.parquet$")
_POINTER = "_delta_log/_last_checkpoint"


@probe("table logs", "output")
def logs(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """Each table opens: no commit is torn or missing, no checkpoint damaged."""
    for name in TABLES:
        table = TABLES[name](pipeline)
        damage = list(_damage(table.folder, pipeline))
        yield from damage
        if any(finding.severity == "error" for finding in damage):
            continue
        try:
            table.load()
        except DeltaError as error:
            yield ProbeFinding(
                "error",
                table.folder.uri,
                f"the table does not open: {' '.join(str(error).split())[:300]}",
                "a Delta table",
                "restore its _delta_log from a backup, or move the table away and run its days again",
            )


@probe("table rows", "output", seconds=60)
def rows(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """Each day's rows in the tables are those recorded in state/, and their files exist."""
    published_days, damaged = _published_days(pipeline)
    yield from (
        ProbeFinding(
            "error", pipeline.output.uri, text, "the record of a published day", "remove it and run the day again"
        )
        for text in damaged
    )
    wrong = _mismatches(pipeline, published_days)
    if wrong:
        time.sleep(SETTLES)
        again = _mismatches(pipeline, _published_days(pipeline)[0])
        wrong = [mismatch for mismatch in wrong if mismatch in again]
        in_flight = _in_flight(pipeline, {(mismatch.table, mismatch.day) for mismatch in wrong})
        for table in sorted({mismatch.table for mismatch in wrong} if in_flight else ()):
            if days := sorted(day for name, day in in_flight if name == table):
                yield ProbeFinding(
                    "info",
                    f"{TABLES[table](pipeline).folder.uri}: {', '.join(ranges(days))}",
                    f"committed within the last {IN_FLIGHT / 60:.0f} minutes, not yet in state/: a run is at work",
                    remedy=f"if none is: batch-scoring doctor {pipeline.name}, {IN_FLIGHT / 60:.0f} minutes later",
                )
        wrong = [mismatch for mismatch in wrong if mismatch.kind == "files" or _place(mismatch) not in in_flight]
    by_kind: dict[tuple[str, str], list[_Mismatch]] = {}
    for mismatch in wrong:
        by_kind.setdefault((mismatch.table, mismatch.kind), []).append(mismatch)
    for (_, kind), group in by_kind.items():
        days = sorted({mismatch.day for mismatch in group})
        more = f" (and {len(group) - 1} more days)" if len(group) > 1 else ""
        yield ProbeFinding(
            "warning" if kind == "no record" else "error",
            f"{group[0].uri}: {', '.join(ranges(days))}",
            f"{group[0].day}: {group[0].text}{more}",
            "the rows that state/ records for the day, in files that exist",
            f"batch-scoring backfill {pipeline.name} {days[0]} {days[-1]}; never run two OPTIMIZE or VACUUM at once",
        )


@dataclass(frozen=True)
class _Mismatch:
    """A day whose rows or files in a table differ from the state."""

    table: str
    uri: str
    day: str
    kind: str
    text: str


def _place(mismatch: _Mismatch) -> tuple[str, str]:
    return mismatch.table, mismatch.day


def _in_flight(pipeline: Pipeline, places: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """The days of tables that a run has just committed, without having written its state yet."""
    found = set()
    for name, days in _grouped(places).items():
        table = TABLES[name](pipeline)
        delta = table.load()
        recent = _recent_commits(table.folder)
        for day in days if delta and recent else ():
            for step in WRITING_STEPS if name == "quarantine" else [step for step in WRITING_STEPS if step == name]:
                work = DayStep(pipeline, day, step)
                part = work.quarantine if name == "quarantine" else work.table
                committed = delta.transaction_version(part.transaction) or 0  # type: ignore[union-attr]
                if committed > _recorded(work, part) and any(f'"{part.transaction}"' in text for text in recent):
                    found.add((name, day))
    return found


def _grouped(places: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    days: dict[str, list[str]] = {}
    for name, day in sorted(places):
        days.setdefault(name, []).append(day)
    return days


def _recorded(work: DayStep, part: Part) -> float:
    """The newest commit of the part that the state records; infinite if that is damaged, so that no run is awaited."""
    try:
        published_day = work.state.published_day(work.name, work.day)
    except StateError:
        return float("inf")
    return (
        0
        if published_day is None
        else (published_day.quarantine if part is work.quarantine else published_day.table).transaction
    )


def _recent_commits(folder: Folder) -> list[str]:
    """The contents of commits made within the last minutes."""
    since = datetime.now(UTC) - timedelta(seconds=IN_FLIGHT)
    files = (file for file in folder.list("_delta_log/") if _COMMIT.match(file.path) and file.modified > since)
    return [content.decode() for content in folder.read_each([file.path for file in files]) if content]


def _damage(folder: Folder, pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """Findings about the files of a log; none if the table does not exist yet."""
    files = {file.path: file for file in folder.list("_delta_log/")}
    commits = {int(match[1]): file for path, file in files.items() if (match := _COMMIT.match(path))}
    points = {int(match[1]): file for path, file in files.items() if (match := _CHECKPOINT.match(path))}
    if not commits and not points:
        return
    yield from _bad_checkpoint(folder, files, commits, points)
    start = max(points, default=-1) + 1
    needed = range(start, max(commits, default=-1) + 1)
    if gaps := [version for version in needed if version not in commits]:
        yield ProbeFinding(
            "error",
            f"{folder.uri}/_delta_log/{gaps[0]:020}.json",
            "this commit is missing, later ones are there",
            "commits without a gap",
            "restore it from a backup, or move the table away and run its days again",
        )
    again = f"batch-scoring doctor {pipeline.name}: it names the day to run again"
    there = [version for version in needed if version in commits]
    for version in there:
        is_last, file = version == there[-1], commits[version]
        name = f"{folder.uri}/{file.path}"
        if file.size == 0 and is_last:
            yield ProbeFinding(
                "warning",
                name,
                "the last commit is empty: a power cut destroyed it, the table is as it was before",
                "a commit",
                "the probe of the tables' rows names the day and the command",
            )
        elif file.size and (fault := _torn(folder.read(file.path))):
            yield ProbeFinding(
                "error",
                name,
                f"this commit is torn ({file.size} bytes: {fault}): the table cannot be opened",
                "JSON, one action per line",
                f"{_removal(folder, [file.path])}, then {again}"
                if is_last
                else "restore it from a backup, or move the table away and run its days again",
            )


def _bad_checkpoint(
    folder: Folder, files: dict[str, FileVersion], commits: dict[int, FileVersion], points: dict[int, FileVersion]
) -> Iterator[ProbeFinding]:
    """Findings about the newest checkpoint, and the file that points to it."""
    newest = max(points, default=None)
    bad = []
    if newest is not None and (fault := _no_parquet(folder, points[newest])):
        bad = [points[newest].path]
        found = f"this checkpoint is damaged: {fault}"
    elif _POINTER in files and newest is None:
        found = "it names a checkpoint that does not exist"
    else:
        return
    bad += [_POINTER] if _POINTER in files else []
    before = max((version for version in points if newest is not None and version < newest), default=-1)
    last = max(commits, default=-1)
    is_whole = all(version in commits for version in range(before + 1, last + 1)) and last >= 0
    yield ProbeFinding(
        "error",
        f"{folder.uri}/{bad[0]}",
        f"{found}: the table cannot be opened",
        "a Parquet file, and a pointer to it",
        f"{_removal(folder, bad)}; the commits hold all of its content"
        if is_whole
        else "restore it from a backup: commits that it held are gone; or move the table away and run its days again",
    )


def _removal(folder: Folder, paths: Iterable[str]) -> str:
    names = [shell_word(f"{folder.uri}/{path}") for path in paths]
    return f"rm {' '.join(names)}" if folder.is_local else " && ".join(f"aws s3 rm {name}" for name in names)


def _torn(content: bytes) -> str:
    """Why a commit cannot be read; empty if it can be."""
    for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
        try:
            json.loads(line)
        except json.JSONDecodeError as error:
            return f"line {number}: {error.msg}"
    return ""


def _no_parquet(folder: Folder, file: FileVersion) -> str:
    if file.size < 12:
        return f"it has {file.size} bytes"
    with folder.open(file.path) as stream:
        stream.seek(file.size - 4)
        return "" if stream.read(4) == b"PAR1" else f"{file.size} bytes without a Parquet footer"


def _published_days(pipeline: Pipeline) -> tuple[dict[StepName, dict[str, PublishedDay]], list[str]]:
    """The published days of each step, and messages about damaged records."""
    state = State(pipeline.output)
    found: dict[StepName, dict[str, PublishedDay]] = {}
    damaged = []
    for step in WRITING_STEPS:
        try:
            listed = state.published_days(step)
        except StateError:  # one is damaged: reading day by day shows which
            listed = []
            names = pipeline.output.subfolder("state").children().folders
            for day in (name.removeprefix("dt=") for name in names if name.startswith("dt=")):
                try:
                    listed += [published_day] if (published_day := state.published_day(step, day)) else []
                except StateError as error:
                    damaged.append(str(error))
        found[step] = {published_day.day: published_day for published_day in listed}
    return found, damaged


def _mismatches(pipeline: Pipeline, published_days: dict[StepName, dict[str, PublishedDay]]) -> list[_Mismatch]:
    found: list[_Mismatch] = []
    for name in TABLES:
        table = TABLES[name](pipeline)
        try:
            delta = table.load()
        except DeltaError:
            continue  # the probe of the logs reports it
        actions = pa.table(delta.get_add_actions(flatten=True)).to_pylist() if delta else []
        stored = {file.path: file.size for file in table.folder.list("dt=")} if actions else {}
        found += _compared(table, actions, stored, _expected(pipeline, table, delta, published_days))
    return found


def _expected(
    pipeline: Pipeline, table: Table, delta: DeltaTable | None, published_days: dict[StepName, dict[str, PublishedDay]]
) -> dict[str, int]:
    """Rows by day that the state records, without those that retention has removed."""

    def is_removed(part: Part, transaction: int) -> bool:
        return delta is not None and delta.transaction_version(part.expiry) == transaction

    for step, by_day in published_days.items():
        if step == table.name:
            return {
                day: 0 if is_removed(Part(table, day, step), published.table.transaction) else published.rows
                for day, published in by_day.items()
            }
    total: Counter[str] = Counter()
    for by_day in published_days.values():
        for day, published_day in by_day.items():
            part = DayStep(pipeline, day, published_day.step).quarantine
            gone = is_removed(part, published_day.quarantine.transaction)
            total[day] += 0 if gone else published_day.rows_quarantined
    return dict(total)


def _compared(
    table: Table, actions: list[dict[str, object]], stored: dict[str, int], expected: dict[str, int]
) -> Iterator[_Mismatch]:
    mismatch = functools.partial(_Mismatch, table.name, table.folder.uri)
    counted: Counter[str] = Counter()
    uncounted: set[str] = set()
    gone: dict[str, str] = {}
    for action in actions:
        day, path = str(action["partition.dt"]), str(action["path"])
        if isinstance(records := action["num_records"], int):
            counted[day] += records
        else:
            uncounted.add(day)
        if stored.get(path) != action["size_bytes"]:
            gone.setdefault(day, f"{path} has {stored.get(path, 'no')} bytes, {action['size_bytes']} were committed")
    for day in sorted({*counted, *expected, *gone}):
        there, wanted = counted[day], expected.get(day)
        if day in gone:
            yield mismatch(day, "files", gone[day])
        elif day in uncounted:
            continue  # files of another program, without counts
        elif wanted is None:
            yield _Mismatch(
                table.name, table.folder.uri, day, "no record", f"{there:,} rows, and no record of the day in state/"
            )
        elif there != wanted:
            times = f", {there // wanted} times" if wanted and there % wanted == 0 and there else ""
            kind = "more" if there > wanted else "fewer"
            yield _Mismatch(
                table.name, table.folder.uri, day, kind, f"{there:,} rows{times}; state/ records {wanted:,}"
            )
