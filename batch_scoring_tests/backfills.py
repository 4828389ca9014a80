"""Days of a tiny pipeline that a backfill runs, and how each of them ended."""

import io
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

import dagster as dg
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from batch_scoring.cli.backfill import run_days
from batch_scoring.cli.backfill.selection import Wanted
from batch_scoring.operations.run_history import PARTITION
from batch_scoring_tests.tiny import TinyProject

DAYS = [f"2024-03-0{number}" for number in range(1, 7)]
STALE, FAILED = Wanted(stale=True), Wanted(failed=True)


def within(first: str, last: str) -> Wanted:
    """Every day of a range."""
    return Wanted(date.fromisoformat(first), date.fromisoformat(last))


def score(tiny: TinyProject, wanted: Wanted) -> tuple[int, dict[str, str]]:
    """Run the days: the exit code, and by day how it ended (the last column of its row)."""
    out = io.StringIO()
    code = run_days.score(tiny.pipeline, wanted, out)
    return code, endings(out.getvalue())


def endings(text: str) -> dict[str, str]:
    """How each day of a printed table ended."""
    rows = [re.split(r"\s{2,}", line) for line in text.splitlines() if re.match(r"2024-.* s left$", line)]
    return {cells[0]: "scored" if cells[5][0].isdigit() else cells[5] for cells in rows}


def shown(tiny: TinyProject, wanted: Wanted) -> dict[str, str]:
    """What a dry run says of each day; it must not have written anything."""
    out, before = io.StringIO(), tree(Path(tiny.data_root))
    assert run_days.show(tiny.pipeline, wanted, out) == 0
    assert tree(Path(tiny.data_root)) == before
    lines = out.getvalue().splitlines()
    if len(lines) == 1 and lines[0].startswith("nothing to do: "):
        return {}
    return dict(line.split("  ", 1) for line in lines)


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Time and size of everything below a folder."""
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*")}


def land(tiny: TinyProject, *days: str) -> None:
    """A file of its own for each day."""
    for day in days:
        tiny.land(day, tiny.rows(64, start=100 * int(day[-2:])))


def break_input(tiny: TinyProject, day: str) -> None:
    """A file that a blocking check refuses."""
    tiny.land(day, b"no parquet")


def runs_of(instance: dg.DagsterInstance) -> Counter[str]:
    """Number of runs by day."""
    return Counter(record.dagster_run.tags[PARTITION] for record in instance.get_run_records())


def launched(
    tiny: TinyProject, instance: dg.DagsterInstance, day: str, status: dg.DagsterRunStatus, *, by_shell: bool = False
) -> dg.DagsterRun:
    """A run as the daemon or the UI starts it in another process, or a command of a shell."""
    place = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("elsewhere"), "__repository__")
    job = f"score_{tiny.name}"
    origin = None if by_shell else RemoteJobOrigin(place, job)
    return instance.run_storage.add_run(
        dg.DagsterRun(job_name=job, status=status, tags={PARTITION: day}, remote_job_origin=origin)
    )


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for something that another process or thread does."""
    limit = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)
