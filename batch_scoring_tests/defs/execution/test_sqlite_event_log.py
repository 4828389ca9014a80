"""Dagster's event log with connections that stay open: the same files and rows, whoever else is at them."""

import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite import sqlite_event_log

from batch_scoring.config.loader import PROJECT
from batch_scoring.defs.execution import sqlite_event_log as event_log
from batch_scoring.defs.execution.sqlite_event_log import EventLog
from batch_scoring_tests.reliability.deployment import wait_until


@dg.asset(check_specs=[dg.AssetCheckSpec("is_there", asset="thing")])
def thing() -> dg.MaterializeResult:  # type: ignore[type-arg]
    return dg.MaterializeResult(metadata={"rows": 3}, check_results=[dg.AssetCheckResult(passed=True)])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the repository's dagster.yaml."""
    shutil.copy(PROJECT / "dagster.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with _open(home) as found:
        yield found


def _open(home: Path) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_config(str(home))


def _materialize(instance: dg.DagsterInstance) -> str:
    result = dg.materialize([thing], instance=instance)
    assert result.success
    return result.run_id


def _log(instance: dg.DagsterInstance) -> EventLog:
    found = instance.event_log_storage
    assert isinstance(found, EventLog)
    return found


def _files(home: Path, ending: str) -> list[str]:
    return sorted(path.name for path in (home / "history/runs").glob(f"*{ending}"))


def test_the_instance_of_a_laptop_keeps_its_connections(home: Path) -> None:
    with _open(home) as instance:
        run = _materialize(instance)
        kept = {shard: one.engine.pool.status() for shard, one in _log(instance)._kept.items()}
    assert set(kept) == {"index", run}
    assert all("Current Checked out connections: 0" in status for status in kept.values())


def test_dagsters_own_log_makes_an_engine_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When Dagster mends that, and this fails, `event_log.py` can go."""
    made: list[str] = []
    original = sqlite_event_log.create_engine
    monkeypatch.setattr(
        sqlite_event_log, "create_engine", lambda url, **options: made.append(url) or original(url, **options)
    )
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        events = len(instance.all_logs(_materialize(instance)))
    assert len(made) > events > 10


def test_dagsters_own_log_reads_the_same_history(home: Path) -> None:
    with _open(home) as instance:
        run = _materialize(instance)
        seen = _told(instance, run)
    assert _files(home, "-wal") == []  # all is in the files as soon as they are closed

    settings = yaml.safe_load((home / "dagster.yaml").read_text())
    del settings["event_log_storage"]
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with _open(home) as instance:
        assert type(instance.event_log_storage) is SqliteEventLogStorage
        assert _told(instance, run) == seen and len(seen[0]) > 10
        later = _materialize(instance)

    shutil.copy(PROJECT / "dagster.yaml", home)
    with _open(home) as instance:
        assert _told(instance, run) == seen
        assert len(_told(instance, later)[0]) == len(seen[0])


def _told(instance: dg.DagsterInstance, run: str) -> tuple[list[str], list[str]]:
    events = [f"{entry.timestamp} {entry.message}" for entry in instance.all_logs(run)]
    materialized = instance.fetch_materializations(thing.key, limit=10)
    return events, [record.run_id for record in materialized.records if record.run_id == run]


def test_without_dagster_home_the_log_is_where_the_runs_are(tmp_path: Path) -> None:
    """As `dagster dev` opens an instance in a folder with a dagster.yaml: another folder, with that file's settings."""
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), config_dir=str(PROJECT))) as instance:
        run = _materialize(instance)
        reference = instance.get_ref()
        with dg.DagsterInstance.from_ref(reference) as other:  # as the code server's and the run's process do
            assert len(other.all_logs(run)) > 10
    assert _files(tmp_path, ".db") == sorted(["index.db", f"{run}.db"])


def test_only_so_many_databases_are_open(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "DATABASES", 3)
    runs = [_materialize(instance) for _ in range(5)]
    assert len(_log(instance)._kept) == 3
    assert len(_files(home, "-wal")) == 3
    assert all(len(instance.all_logs(run)) > 10 for run in runs)
    assert len(_log(instance)._kept) == 3


def test_a_log_that_somebody_wipes_goes_on(home: Path, instance: dg.DagsterInstance) -> None:
    run = _materialize(instance)
    with _open(home) as other:
        other.wipe()
    assert instance.all_logs(run) == []
    for file in (home / "history/runs").iterdir():  # as a person does
        file.unlink()
    later = _materialize(instance)
    with _open(home) as other:
        assert len(other.all_logs(later)) > 10
        assert len(other.fetch_materializations(thing.key, limit=10).records) == 1


def test_threads_and_processes_write_at_once(home: Path, instance: dg.DagsterInstance) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(home,)) for _ in range(2)]
    for process in processes:
        process.start()
    runs = [_run(instance) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:  # as the web server's and the daemon's threads
        for future in [pool.submit(_report, instance, run) for run in runs]:
            future.result()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    for run in runs:
        assert [_message(entry) for entry in instance.all_logs(run.run_id)][-20:] == [f"event {n}" for n in range(20)]
    records = instance.fetch_materializations(thing.key, limit=100).records
    assert len(records) == 2 * 4
    assert len({_events(instance, record.run_id) for record in records}) == 1


def _events(instance: dg.DagsterInstance, run: str) -> int:
    """Events of a run without log lines: Dagster warns now and then that another process was at the asset too."""
    return sum(entry.is_dagster_event for entry in instance.all_logs(run))


def _run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    definitions = dg.Definitions([thing], jobs=[dg.define_asset_job("job", [thing])])
    return instance.create_run_for_job(definitions.resolve_job_def("job"))


def _message(entry: dg.EventLogEntry) -> str:
    assert entry.dagster_event is not None
    return entry.dagster_event.message or ""


def _report(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    for number in range(20):
        instance.report_engine_event(f"event {number}", run)
        instance.all_logs(run.run_id)


def _write(home: Path) -> None:
    with _open(home) as instance:
        for _ in range(4):
            _materialize(instance)


def test_the_ui_is_told_of_events_while_their_run_is_under_way(home: Path, instance: dg.DagsterInstance) -> None:
    told: list[str] = []
    with _open(home) as writer:
        run = _run(writer)
        instance.watch_event_logs(run.run_id, None, callback := lambda entry, _: told.append(_message(entry)))
        for number in range(3):
            writer.report_engine_event(f"event {number}", run)
            assert wait_until(lambda number=number: f"event {number}" in told, 20), told  # type: ignore[misc]
        instance.end_watch_event_logs(run.run_id, callback)
        writer.report_engine_event("nobody listens", run)
    assert told[-3:] == ["event 0", "event 1", "event 2"]
