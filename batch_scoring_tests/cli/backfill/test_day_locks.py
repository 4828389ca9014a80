"""Days that somebody else works on: locked, or of a run that Dagster has launched."""

import os
import threading
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from batch_scoring.cli.backfill import day_locks
from batch_scoring.errors import HeldError
from batch_scoring_tests.backfills import DAYS, launched
from batch_scoring_tests.tiny import TinyProject


def test_a_run_in_the_queue_is_waited_for_only_if_a_daemon_will_start_it(tiny: TinyProject, home: str) -> None:
    with dg.DagsterInstance.from_config(home) as instance:
        queued = launched(tiny, instance, DAYS[0], dg.DagsterRunStatus.QUEUED)
        assert day_locks.launched_run(tiny.pipeline, instance, DAYS[0]) is None
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "x"))
        found = day_locks.launched_run(tiny.pipeline, instance, DAYS[0])
        assert found is not None and (found.id, found.status) == (queued.run_id, "queued")
        launched(tiny, instance, DAYS[1], dg.DagsterRunStatus.STARTED, by_shell=True)
        assert day_locks.launched_run(tiny.pipeline, instance, DAYS[1]) is None, "whether that lives its claim says"


def test_a_day_is_held_once_whatever_way_leads_to_its_output(tiny: TinyProject, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tiny.data_root)
    other = TinyProject(tmp_path / "other", str(tmp_path / "link"))
    other.spec["output"] = tiny.pipeline.output.uri.replace(tiny.data_root, str(tmp_path / "link"))
    other.write_spec()
    with day_locks.hold(tiny.pipeline, DAYS[0]) as left_at:
        assert left_at == 0.0
        for pipeline in (tiny.pipeline, other.pipeline):
            with pytest.raises(HeldError, match=f"process {os.getpid()} is working on it"):
                day_locks.hold(pipeline, DAYS[0]).__enter__()
        with day_locks.hold(tiny.pipeline, DAYS[1]):
            pass
    began = time.time()
    with day_locks.hold(tiny.pipeline, DAYS[0]) as left_at:
        assert began - 5 < left_at <= began


def test_a_claim_whose_file_was_cleaned_away_while_another_waited_is_taken_anew(
    tiny: TinyProject, tmp_path: Path
) -> None:
    seen: list[str] = []

    def second() -> None:
        with day_locks.hold(tiny.pipeline, DAYS[0], waits=True):
            try:
                day_locks.hold(tiny.pipeline, DAYS[0]).__enter__()
            except HeldError as held:
                seen.append(str(held))

    waiting = threading.Thread(target=second)
    with day_locks.hold(tiny.pipeline, DAYS[0]):
        waiting.start()
        time.sleep(0.1)
        assert seen == []
        for file in (tmp_path / "claims").rglob("*.lock"):
            file.unlink()
    waiting.join(10)
    assert seen == [f"process {os.getpid()} is working on it"]


def test_a_folder_of_claims_that_is_a_link_is_refused(tiny: TinyProject, tmp_path: Path) -> None:
    (tmp_path / "claims" / f"batch_scoring-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="remove it, or let TMPDIR name another folder"):
        day_locks.hold(tiny.pipeline, DAYS[0]).__enter__()
