"""What becomes of the days of a backfill, alone and beside others."""

import io
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import dagster as dg
import pandera.pandas  # noqa: F401  (a child shall find it imported)
import pytest
import torch

from batch_scoring.cli.backfill import day_locks, run_days
from batch_scoring.cli.backfill.selection import Wanted
from batch_scoring.runtime import run_locks
from batch_scoring_tests.backfills import DAYS, STALE, endings, land, launched, runs_of, score, wait_until, within
from batch_scoring_tests.reliability.processes import Site, site_of
from batch_scoring_tests.tiny import TinyProject

SERVER = multiprocessing.get_context("forkserver")
BLOCKED = run_days.DayCheck("tiny/raw_input input_is_present", "no files", of_day=True)


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    """The processes are forked from a server that imports while other tests run; its socket needs a short path."""
    SERVER.set_forkserver_preload([__name__])
    forkserver.ensure_running()


def at_work(site: Site, said: Path, days: Wanted) -> None:
    """A backfill in a process that has the heavy imports behind it."""
    os.environ.update(site.environment)
    os.chdir(said.parent)
    tempfile.tempdir = str(said.parent)
    torch.set_num_threads(1)
    pipeline = site.pipeline()
    said.touch()
    wait_until((said.parent / "go").exists)
    with said.open("w") as out:
        sys.exit(run_days.score(pipeline, days, out))


def two_at_work(
    tiny: TinyProject, tmp_path: Path, environment: dict[str, str], days: Wanted
) -> tuple[list[Any], list[Path]]:
    """Two backfills of the same days that begin at once, and where each of them writes."""
    said = [tmp_path / "claims" / name for name in ("one", "two")]
    site = site_of(tiny, environment)
    both = [SERVER.Process(target=at_work, args=(site, file, days), daemon=True) for file in said]
    for process in both:
        process.start()
    wait_until(lambda: all(file.exists() for file in said))
    (tmp_path / "claims" / "go").touch()
    return both, said


def slow_down(tiny: TinyProject, seconds: float) -> None:
    """Let a day take a while: its network dawdles."""
    network = (tiny.folder / "network.py").read_text()
    nap = f"        import time\n        time.sleep({seconds})\n"
    dawdling = network.replace("        result =", f"{nap}        result =")
    assert dawdling != network
    tiny.write_code(network=dawdling)


def test_two_backfills_at_once_run_each_day_once(tiny: TinyProject, home: str, tmp_path: Path) -> None:
    land(tiny, *DAYS)
    both, said = two_at_work(tiny, tmp_path, {"DAGSTER_HOME": home}, within(DAYS[0], DAYS[-1]))
    for process in both:
        process.join(60)
    texts = [file.read_text() for file in said]
    assert [process.exitcode for process in both] == [0, 0], texts
    with dg.DagsterInstance.from_config(home) as instance:
        assert runs_of(instance) == Counter(DAYS)
    ends = [endings(text) for text in texts]
    assert all(found.keys() == set(DAYS) for found in ends)
    assert all(sorted(found[day] for found in ends) == ["by another", "scored"] for day in DAYS), texts
    assert any("postponed: process" in text for text in texts)


def test_a_killed_backfill_blocks_nobody(tiny: TinyProject, tmp_path: Path) -> None:
    land(tiny, *DAYS[:3])
    slow_down(tiny, 0.1)
    (killed, other), said = two_at_work(tiny, tmp_path, {}, within(DAYS[0], DAYS[2]))
    wait_until(lambda: any(file.read_text() == str(killed.pid) for file in tmp_path.rglob("*.lock")))
    killed.kill()
    killed.join()
    other.join(60)
    text = said[1].read_text()
    assert killed.exitcode == -signal.SIGKILL
    assert (other.exitcode, endings(text).keys()) == (0, set(DAYS[:3])), text
    assert all(tiny.read(day).num_rows == 64 for day in DAYS[:3])


def test_a_day_that_a_launched_run_works_on_comes_last_and_is_done_by_another_or_run(
    tiny: TinyProject, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(tiny, *DAYS[:2])
    tiny.run(DAYS[0])
    monkeypatch.setattr(day_locks, "POLL", 0.1)
    monkeypatch.setenv("DAGSTER_HOME", home)
    with dg.DagsterInstance.get() as instance:
        going = [launched(tiny, instance, day, dg.DagsterRunStatus.STARTED) for day in DAYS[:2]]
        out, waited = io.StringIO(), []

        def end() -> None:
            wait_until(lambda: f"{DAYS[1]}  postponed" in out.getvalue())
            time.sleep(0.3)
            waited.append(endings(out.getvalue()))
            for run in going:
                instance.report_run_failed(run)

        ending = threading.Thread(target=end)
        ending.start()
        assert run_days.score(tiny.pipeline, within(DAYS[0], DAYS[1]), out) == 0
        ending.join()
    assert f"{DAYS[0]}  postponed: run {going[0].run_id[:8]} is started\n" in out.getvalue()
    assert waited == [{}] and endings(out.getvalue()) == {DAYS[0]: "by another", DAYS[1]: "scored"}


@pytest.mark.parametrize("wanted", [STALE, within(DAYS[0], DAYS[1])])
def test_a_day_that_another_backfill_has_done_since_this_one_began_is_not_run_again(
    tiny: TinyProject, wanted: Wanted
) -> None:
    land(tiny, *DAYS[:2])
    assert score(tiny, within(DAYS[0], DAYS[1]))[0] == 0
    tiny.deliver("v2", seed=1)

    class Out(io.StringIO):
        def write(self, text: str) -> int:
            if text.startswith("day "):  # the head of the table: the days are chosen, none is run
                with day_locks.hold(tiny.pipeline, DAYS[0]):
                    tiny.run(DAYS[0])
            return super().write(text)

    out = Out()
    assert run_days.score(tiny.pipeline, wanted, out) == 0
    assert endings(out.getvalue()) == {DAYS[0]: "by another", DAYS[1]: "scored"}
    if wanted.is_range:
        assert score(tiny, wanted) == (0, dict.fromkeys(DAYS[:2], "unchanged")), "it was done before this one began"


def test_a_day_that_failed_before_its_checks_counts_none_of_them() -> None:
    lines = [run_days.DayOutcome(DAYS[0], "an error", checks).line for checks in ((), (BLOCKED,))]
    assert [line.split()[1:] for line in lines] == [["-", "-", "-", "-", "failed"], ["-", "-", "-", "1", "failed"]]
    assert run_days.DayOutcome(DAYS[0], None, rows_in=5, scored=5).line.split()[1:] == ["5", "5", "0", "0", "-"]


# runs that were killed


def test_a_killed_run_is_recorded_in_the_state_without_a_daemon(
    tiny: TinyProject, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", home)
    land(tiny, DAYS[0])
    with dg.DagsterInstance.get() as instance:
        dead = launched(tiny, instance, DAYS[1], dg.DagsterRunStatus.STARTED, by_shell=True)
        lock = run_locks.folder(home) / f"{dead.run_id}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()  # nobody holds it
    assert score(tiny, within(DAYS[0], DAYS[0])) == (0, {DAYS[0]: "scored"})
    (record,) = tiny.state.failures_since(datetime(2024, 1, 1, tzinfo=UTC))
    assert (record.run_id, record.day, record.failure_class) == (dead.run_id, DAYS[1], "lost")
