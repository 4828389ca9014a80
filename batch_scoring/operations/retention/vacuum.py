"""Vacuum: deletes the files that `plan.py` finds unneeded, and commits tables without their old rows.

deltalake's own `vacuum` is not used, for reasons that were each verified: once a checkpoint is written it forgets what
was removed more than a week ago, whatever the retention; with `full=True`, without which it leaves what dead runs have
written, it deletes unexpected files too; and it uses this machine's clock. Here the log itself shows which files were
in use since when, by the timestamps that the store gave its entries; and no log entry is ever deleted.

No locks are needed. A deleted file can be neither read nor published any more by anyone; old rows are removed from a
table in a strict commit, which is planned anew after a conflict; two concurrent passes, or a killed one, leave only
files that the next pass finds.
"""

import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import get_args

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import CommitProperties, RemoveAction, Transaction

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.publish import DayStep
from batch_scoring.daily.tables import TABLES
from batch_scoring.errors import BundleError, StateError, UnsureError
from batch_scoring.inference.bundle import read_sha256
from batch_scoring.operations.retention import plan as planner
from batch_scoring.operations.retention.plan import ActiveFile, Expired, Limits, RetentionPlan, TableFiles
from batch_scoring.storage import aws
from batch_scoring.storage.delta import Part, Table, partition_values, raise_if_forbidden, settle
from batch_scoring.storage.folders.folder import FileVersion, Folder
from batch_scoring.storage.folders.s3 import S3Folder
from batch_scoring.storage.state import FAILURE_RECORDS, REFERENCES, State, StepName

COMMIT_SECONDS = 120.0
"""Seconds for which a table's commit is retried after conflicts, or while the store does not answer."""
CHUNK = 500
"""Files deleted between two checks of what a table needs."""

_ENTRY = re.compile(r"_delta_log/(\d{20})\.json")


@dataclass
class Swept:
    """Result of a pass."""

    removed: list[Expired] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def look(pipeline: Pipeline, limits: Limits, *, now: datetime | None = None) -> RetentionPlan:
    """Find the files that may be deleted. Nothing is changed.

    Args:
        pipeline: of the output.
        limits: by kind.
        now: with a time zone; the store's own time if None.

    Raises:
        OSError: the store's time cannot be read.
    """
    machine = now or datetime.now(UTC)
    now = now or store_time(pipeline.output)
    problems: list[str] = []
    expired: list[Expired] = []
    views: list[TableFiles] = []
    for find_table in TABLES.values():
        table = find_table(pipeline)
        with _noted(problems, f"table {table.name}"):
            views.append(view := table_files(table, now - limits.superseded)[1])
            expired += planner.superseded(view, limits, now)
            expired += planner.old_rows(view, limits, now)
    with _noted(problems, "scratch files"):
        expired += planner.scratch(_scratch_files(pipeline), limits, now)
        expired += planner.references(pipeline.output.list(f"{REFERENCES}/"), limits, now)
    with _noted(problems, "failures"):
        expired += planner.old_failures(pipeline.output.list(f"{FAILURE_RECORDS}/"), limits, now)
    if limits.reports:
        with _noted(problems, "reports"):
            expired += planner.old_pages(pipeline.output.list("reports/dt="), limits, now)
    if limits.samples:
        with _noted(problems, "samples"):
            expired += planner.old_samples(pipeline.output.list("state/dt="), limits, now)
    if limits.models:
        with _noted(problems, "models"):
            expired += _old_models(pipeline, limits, now)
    doubts = planner.doubts(
        now,
        machine,
        [file for view in views for file in view.files],
        [view.newest_commit for view in views],
        store_has_a_clock=not pipeline.output.is_local,
    )
    return RetentionPlan(now, limits, tuple(expired), tuple(problems), tuple(doubts))


def sweep(
    pipeline: Pipeline,
    plan: RetentionPlan,
    run_id: str,
    log: Callable[[str], object] = lambda _: None,
    *,
    clock_is_right: bool = False,
) -> Swept:
    """Delete the files of a plan that are still not needed.

    Args:
        pipeline: of the plan.
        plan: as `look` made it.
        run_id: of the current run; recorded in the commits of tables.
        log: receives what was done.
        clock_is_right: whether a person has confirmed it; else nothing is deleted while the plan doubts the clock.

    Returns:
        The deleted files, and the problems; one problem does not stop the rest.
    """
    swept = Swept(problems=list(plan.problems))
    if plan.doubts and not clock_is_right:
        swept.problems += [f"nothing was removed, the clock is in doubt: {doubt}" for doubt in plan.doubts]
        return swept
    for name, kind in planner.OLD_ROWS.items():
        if plan.of(kind):
            with _noted(swept.problems, f"table {name}"):
                swept.removed += _remove_old_rows(pipeline, TABLES[name](pipeline), plan, run_id, log)
    for find_table in TABLES.values():
        table = find_table(pipeline)
        mine = [file for file in plan.of("superseded") if file.path.startswith(f"tables/{table.name}/")]
        with _noted(swept.problems, f"table {table.name}"):
            for chunk in _chunks(mine):
                # an old version may have been restored since: its files are needed again
                delta, view = table_files(table, plan.now - plan.limits.superseded, files=())
                if delta is None:
                    raise UnsureError(f"{table.folder.uri} has no log any more")
                needed = {f"tables/{table.name}/{path}" for path in view.needed}
                _remove(pipeline.output, [file for file in chunk if file.path not in needed], swept)
    for chunk in _chunks(plan.of("scratch", "reports", "samples", "failures")):
        with _noted(swept.problems, "scratch files, reports, samples and failures"):
            _remove(pipeline.output, chunk, swept)
    if models := plan.of("models"):
        with _noted(swept.problems, "models"):
            again = {file.path for file in _old_models(pipeline, plan.limits, plan.now)}
            _remove(pipeline.output, [file for file in models if file.path in again], swept)
    for kind, total in RetentionPlan(plan.now, plan.limits, tuple(swept.removed)).totals.items():
        if total.files:
            log(f"{kind}: {total.files} files removed, {total.bytes} bytes")
    return swept


def store_time(folder: Folder) -> datetime:
    """The time (UTC) by the store's clock, which dates the folder's files; this machine's where nothing can be written.

    Raises:
        OSError: S3 did not answer.
    """
    if isinstance(folder, S3Folder):
        with aws.as_os_errors(folder.uri):
            answer = aws.client("s3").list_objects_v2(Bucket=folder.bucket, Prefix=folder.key(""), MaxKeys=1)
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    if Path(folder.uri).is_dir():
        with suppress(OSError), folder.scratch() as scratch:  # a network file system has its own clock
            scratch.touch()
            return datetime.fromtimestamp(scratch.stat().st_mtime, UTC)
    return datetime.now(UTC)


def table_files(
    table: Table, before: datetime, files: Sequence[FileVersion] | None = None
) -> tuple[DeltaTable | None, TableFiles]:
    """A table's newest version, and its files with their entries in the log.

    Args:
        table: which.
        before: younger entries of the log are read.
        files: those of the table, if they are known; must have been listed before this call.

    Raises:
        UnsureError: the log does not show what was in use since then.
        OSError, DeltaError: the listing or the log could not be read.
    """
    listed = tuple(table.folder.list("dt=")) if files is None else tuple(files)  # first: later files are young
    delta = table.load()
    if delta is None:
        if any(file.modified < before for file in listed):
            raise UnsureError(f"{table.folder.uri} has files and no log; expected _delta_log beside them")
        return None, TableFiles(table.name, (), {}, frozenset(), None)
    recent, newest = _read_log(table.folder, delta.version(), before)
    actions = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
    active = {row["path"]: ActiveFile(str(row["partition.dt"]), row["num_records"] or 0) for row in actions}
    return delta, TableFiles(table.name, listed, active, recent, newest)


def _read_log(folder: Folder, version: int, before: datetime) -> tuple[frozenset[str], datetime]:
    """Paths in the log's entries since a time, and when the newest entry was written."""
    found = ((_ENTRY.fullmatch(file.path), file) for file in folder.list("_delta_log/"))
    entries = {int(match[1]): file for match, file in found if match}
    newest = max(entries, default=-1)
    first = min((number for number, file in entries.items() if file.modified >= before), default=newest + 1)
    # and the one before: if it is missing, it might be one of them
    wanted = range(max(first - 1, 0), max(newest, version) + 1)
    if missing := [number for number in wanted if number not in entries]:
        raise UnsureError(
            f"{folder.uri}/_delta_log has no {missing[0]:020}.json; "
            f"what was in use since {before:%Y-%m-%d} cannot be determined"
        )
    paths: set[str] = set()
    numbers = [number for number in wanted if number >= first]
    for number, content in zip(numbers, folder.read_each([entries[n].path for n in numbers]), strict=True):
        try:
            actions = [json.loads(line) for line in (content or b"").splitlines() if line.strip()]
            paths |= {action[kind]["path"] for action in actions for kind in ("add", "remove", "cdc") if kind in action}
        except (ValueError, KeyError, TypeError) as error:
            raise UnsureError(f"{folder.uri}/{entries[number].path} cannot be read: {error}") from error
    return frozenset(paths), entries[newest].modified


def _remove_old_rows(
    pipeline: Pipeline, table: Table, plan: RetentionPlan, run_id: str, log: Callable[[str], object]
) -> list[Expired]:
    """Commit a table without its old rows.

    The days' transaction versions are kept, so that the days stay up to date; a separate application id marks the days
    whose rows were removed, so that a run of an unchanged day does not restore them.

    Raises:
        UnsureError, OSError, DeltaError: it could not be done in time.
    """
    deadline, pause = time.monotonic() + COMMIT_SECONDS, 0.05
    done: list[Expired] = []
    while True:
        try:
            delta, view = table_files(table, plan.now - plan.limits.superseded)
            going = planner.old_rows(view, plan.limits, plan.now)
            if delta is None or not going:
                return done  # by us, or by a concurrent pass with the same plan
            done = going
            _commit_without(delta, pipeline, table, going, run_id)
            settle(table, delta.version() + 1)
        except CommitFailedError as error:
            conflict: Exception = error
        except (DeltaError, OSError) as error:
            raise_if_forbidden(error)
            if table.folder.is_local:
                raise
            conflict = error
        else:
            continue  # the next round finds nothing to do
        if time.monotonic() > deadline:
            raise conflict
        log(f"{table.folder.uri}: not committed yet, trying again: {conflict}")
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, 5.0)


def _commit_without(delta: DeltaTable, pipeline: Pipeline, table: Table, going: Sequence[Expired], run_id: str) -> None:
    """Remove files from the loaded version of a table, or raise CommitFailedError."""
    moment, kind = int(time.time() * 1000), planner.OLD_ROWS[table.name]
    paths = [(file.path.removeprefix(f"tables/{table.name}/"), file.size) for file in going]
    days = sorted({day for path, _ in paths if (day := partition_values(path)["dt"])})
    parts = [part for day in days for part in _parts(pipeline, table, day)]
    delta.create_write_transaction(
        [RemoveAction(path, True, moment, size=size, partition_values=partition_values(path)) for path, size in paths],
        mode="append",
        schema=delta.schema(),
        partition_by=list(table.partition_by),
        commit_properties=CommitProperties(
            custom_metadata={
                "run_id": run_id,
                "retention": f"{kind}_days: {getattr(pipeline.spec.retention, f'{kind}_days')}",
                "rows_removed": str(sum(file.rows for file in going)),
            },
            max_commit_retries=0,
            app_transactions=[
                Transaction(part.expiry, delta.transaction_version(part.transaction) or 0)
                for part in parts
                if any(path.startswith(tuple(part.prefixes)) for path, _ in paths)
            ],
        ),
    )


def _parts(pipeline: Pipeline, table: Table, day: str) -> list[Part]:
    """The parts of a day in a table."""
    steps = [DayStep(pipeline, day, step) for step in get_args(StepName)]
    if table.name == "quarantine":
        return [step.quarantine for step in steps]
    return [step.table for step in steps if step.name == table.name]


def _old_models(pipeline: Pipeline, limits: Limits, now: datetime) -> list[Expired]:
    state = State(pipeline.output)
    copies: dict[str, list[FileVersion]] = {}
    for file in state.models.list():
        moved = FileVersion(f"state/models/{file.path}", file.token, file.size, file.modified)
        copies.setdefault(file.path.partition("/")[0], []).append(moved)
    if len(copies) < 2:
        return []
    published_days, delivered = state.published_days("predictions"), read_sha256(pipeline.bundle)
    return planner.old_models(copies, state.model_or_none(), delivered, published_days, limits, now)


def _scratch_files(pipeline: Pipeline) -> Iterator[FileVersion]:
    """Scratch files by name, which only local folders have."""
    if not pipeline.output.is_local:
        return
    root = Path(pipeline.output.uri)
    models = [f"state/models/{name}" for name in State(pipeline.output).models.children().folders]
    for place in ("", "state", *(f"tables/{name}" for name in TABLES), *models):
        folder = root / place
        for entry in os.scandir(folder) if folder.is_dir() else ():
            if planner.SCRATCH.fullmatch(entry.name):
                try:
                    stat = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # its run has completed it
                    continue
                path = f"{place}/{entry.name}".lstrip("/")
                yield FileVersion(path, "", stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))


def _remove(output: Folder, files: Sequence[Expired], swept: Swept) -> None:
    """Delete files and note them; folders stay, as a run may be about to write there.

    Raises:
        OSError: the first file that could not be deleted.
    """

    def remove(file: Expired) -> OSError | None:
        try:
            output.remove(file.path)
        except OSError as error:
            return error
        return None

    with ThreadPoolExecutor(1 if output.is_local else 16) as pool:
        errors = list(pool.map(remove, files))
    swept.removed += [file for file, error in zip(files, errors, strict=True) if error is None]
    for error in errors:
        if error is not None:
            raise error


def _chunks(files: Sequence[Expired]) -> Iterator[Sequence[Expired]]:
    for start in range(0, len(files), CHUNK):
        yield files[start : start + CHUNK]


@contextmanager
def _noted(problems: list[str], what: str) -> Iterator[None]:
    """Note an error as a problem and leave the block."""
    try:
        yield
    except (UnsureError, StateError, BundleError, DeltaError, OSError) as error:
        said, _, _ = " ".join(str(error).split()).partition(" 0: <unknown>")  # where deltalake's stack begins
        problems.append(f"{what}: {said}; nothing more of it was removed, the next pass tries again")
