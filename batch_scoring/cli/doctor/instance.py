"""Probes of the Dagster instance: folder, settings, daemon, sensors and schedules, dead runs."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from batch_scoring.cli.backfill.day_locks import HEARTBEAT_TIMEOUT
from batch_scoring.cli.doctor.probe import ProbeFinding, Site, probe
from batch_scoring.config import compute
from batch_scoring.config.loader import PROJECT
from batch_scoring.config.names import job_name
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs.execution import sqlite_databases
from batch_scoring.defs.execution.sqlite_event_log import EventLog
from batch_scoring.errors import ComputeError
from batch_scoring.operations.alerting import channels
from batch_scoring.operations.alerting.outbox import Outbox
from batch_scoring.operations.automation import sensor_status
from batch_scoring.operations.dead_runs import find_dead_runs, is_of_this_machine
from batch_scoring.runtime.printable import shell_word

SENSIBLE_MAX_RUNTIME = 7 * 24 * 3600
"""Seconds; a longer maximum runtime is no protection."""
OF_ALL = {
    "alerts": "failed runs, failed checks and late days are not reported",
    "dead_runs": "a run whose process is gone holds its slot of the queue for hours",
}
"""The sensors of the whole deployment, and what is lost without them."""

_START = "make dev, or dagster-daemon run"
_EXPORT = f"export DAGSTER_HOME={shell_word(str(PROJECT))}"


@probe("instance", gives="instance")
def home(site: Site) -> Iterator[ProbeFinding]:
    """DAGSTER_HOME is a folder with a dagster.yaml that Dagster accepts, and its storage opens."""
    if site.home is None:
        yield ProbeFinding(
            "warning",
            "DAGSTER_HOME",
            "it is not set, and there is no dagster.yaml in this folder: runs that are started from here are not kept",
            "the instance that the daemon uses",
            _EXPORT,
        )
        return
    if not site.home.is_absolute() or not site.home.is_dir():
        yield ProbeFinding(
            "error",
            "DAGSTER_HOME",
            f"{site.home} is not a folder, or not an absolute path",
            "an absolute path of a folder",
            f"mkdir -p {shell_word(str(site.home))}, or {_EXPORT}",
        )
        return
    if not (site.home / "dagster.yaml").is_file():
        yield ProbeFinding(
            "warning",
            str(site.home),
            "there is no dagster.yaml: runs have no maximum runtime, and a crashed one is not retried",
            "the project's",
            f"cp {shell_word(f'{PROJECT}/dagster.yaml')} {shell_word(f'{site.home}/')}",
        )
    from batch_scoring.dagster_internals import InstanceRef

    try:
        ref = InstanceRef.from_dir(str(site.home))
        torn = [file for file in sqlite_databases.files(site.home) if len(sqlite_databases.revisions(file)) > 1]
        for file in torn:
            yield ProbeFinding(
                "error",
                str(file),
                "two processes created it at the same time, so it has two revisions: every command fails",
                "one revision",
                f"DAGSTER_HOME={shell_word(str(site.home))} {sqlite_databases.REPAIR}",
            )
        if not torn and not _is_new(site.home):  # opening a new one would create its databases
            site.instance = dg.DagsterInstance.from_ref(ref)
            site.instance.get_daemon_heartbeats()
    except Exception as error:  # Dagster's, or whatever its database raises
        site.instance = None
        yield ProbeFinding(
            "error",
            str(site.home / "dagster.yaml"),
            " ".join(f"{type(error).__name__}: {error}".split())[:400],
            "settings that Dagster accepts, and a storage that opens",
            f"compare it with {PROJECT}/dagster.yaml; check that its database answers and is not damaged",
        )


@probe("instance settings", "instance")
def settings(site: Site) -> Iterator[ProbeFinding]:
    """dagster.yaml has the settings that scheduled runs depend on."""
    if site.home is None or not (site.home / "dagster.yaml").is_file():
        return
    import yaml

    found = yaml.safe_load((site.home / "dagster.yaml").read_text(encoding="utf-8")) or {}
    where = str(site.home / "dagster.yaml")
    for path, is_well, expected, why in _SETTINGS:
        value: Any = found
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if not is_well(value):
            shown = "is not set" if value is None else f"is {value}"
            yield ProbeFinding(
                "warning", where, f"{path} {shown}: {why}", expected, f"set it as {PROJECT}/dagster.yaml does"
            )


def _is_longest(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value <= SENSIBLE_MAX_RUNTIME


_SETTINGS = (
    ("run_monitoring.enabled", lambda v: v is True, "true", "a run that hangs is never ended"),
    (
        "run_monitoring.max_runtime_seconds",
        _is_longest,
        "21600, or what your longest day needs",
        "a run that hangs holds its slot, and its day, for ever",
    ),
    (
        "run_monitoring.free_slots_after_run_end_seconds",
        lambda v: isinstance(v, int) and v > 0,
        "60",
        "pool slots that a cancelled run held are never released",
    ),
    ("run_retries.enabled", lambda v: v is True, "true", "a run whose worker died is not retried"),
    (
        "run_retries.retry_on_asset_or_op_failure",
        lambda v: v is False,
        "false",
        "a day that a check has refused is retried in vain",
    ),
    (
        "concurrency.runs.max_concurrent_runs",
        lambda v: isinstance(v, int) and v > 0,
        "2, or what memory allows",
        "a backfill starts more runs at once than the machine can take (Dagster's own limit is 10), or none",
    ),
)


@probe("executor", "instance")
def executor(site: Site) -> Iterator[ProbeFinding]:
    """The executor exists, and its steps see each other's files."""
    try:
        if compute.executor_name() != "k8s":
            return
        compute.check_shared_folders(site.pipelines)
    except ComputeError as error:
        expected = f"one of {', '.join(compute.EXECUTORS)}, and storage that pods share"
        yield ProbeFinding("error", compute.VARIABLE, str(error), expected, "see deploy/README.md")
        return
    launcher = type(site.instance.run_launcher).__name__ if site.instance else "K8sRunLauncher"
    if launcher == "DefaultRunLauncher":
        yield ProbeFinding(
            "error",
            "dagster.yaml: run_launcher",
            f"{launcher}, and {compute.VARIABLE} is k8s",
            "K8sRunLauncher",
            "see deploy/dagster.yaml; on one machine use in_process or multiprocess",
        )


@probe("daemon", "instance")
def daemon(site: Site) -> Iterator[ProbeFinding]:
    """All parts of the Dagster daemon have sent a heartbeat within the last minutes."""
    beats = site.instance.get_daemon_heartbeats() if site.instance else {}
    if site.instance is None or not beats:
        yield ProbeFinding(
            "info",
            "daemon",
            "none has ever run here: nothing is scored automatically",
            remedy=f"if it should be: {_START}",
        )
        return
    needed = [kind for kind in site.instance.get_required_daemon_types() if kind in beats]
    silent = {kind: beats[kind].timestamp for kind in needed if beats[kind].timestamp < time.time() - HEARTBEAT_TIMEOUT}
    if silent and len(silent) == len(needed):
        last = datetime.fromtimestamp(max(silent.values()), UTC)
        yield ProbeFinding(
            "error",
            "daemon",
            f"no heartbeat since {last:%Y-%m-%d %H:%M} UTC: nothing is scored automatically",
            f"a heartbeat within {HEARTBEAT_TIMEOUT:g} s",
            f"start it: {_START}; batch-scoring backfill works without it",
        )
    elif silent:
        yield ProbeFinding(
            "error",
            "daemon",
            f"parts of it have sent no heartbeat for {HEARTBEAT_TIMEOUT:g} s: {', '.join(sorted(silent))}",
            "a heartbeat of each",
            f"check its log; restart it: {_START}",
        )
    for kind in sorted(set(needed) - set(silent)):
        if errors := [error for error in beats[kind].errors or () if not sensor_status.says_broken(error.message)]:
            first = errors[0].message.strip().splitlines()[0]
            yield ProbeFinding("warning", f"daemon ({kind})", f"its last round failed: {first}", "none", "see its log")


@probe("what starts days", "instance")
def starters(site: Site) -> Iterator[ProbeFinding]:
    """Each pipeline has a running sensor or schedule that starts its days, and none was switched off by hand."""
    known = sensor_status.states(site.instance) if site.instance else {}
    for pipeline in site.pipelines:
        starts = _starters(pipeline)
        on = [name for name, default in starts.items() if sensor_status.is_on(known.get(name), default)]
        by_hand = [name for name, default in starts.items() if default == "running" and name not in on]
        switch = switch_on(site, by_hand[0] if by_hand else next(iter(starts)))
        if not on:
            how = "switched off by hand" if by_hand else "as the spec says"
            yield ProbeFinding(
                "error" if by_hand else "warning",
                f"{pipeline.name}: {', '.join(starts)}",
                f"all are stopped ({how}): nothing starts a day",
                "at least one that is on",
                switch,
            )
        elif by_hand:
            yield ProbeFinding(
                "warning",
                f"{pipeline.name}: {', '.join(by_hand)}",
                f"switched off by hand; on: {', '.join(on)}",
                "on, as the spec says",
                f"{switch}; or say stopped in the spec",
            )


@probe("guards", "instance")
def guards(site: Site) -> Iterator[ProbeFinding]:
    """The sensors that send alerts and end the runs of dead processes are on."""
    known = sensor_status.states(site.instance) if site.instance else {}
    for name, lost in OF_ALL.items():
        if not sensor_status.is_on(known.get(name), "running"):
            yield ProbeFinding(
                "warning",
                f"sensor {name}",
                f"it is stopped: {lost}",
                "on",
                switch_on(site, name),
            )


@probe("ticks", "instance")
def ticks(site: Site) -> Iterator[ProbeFinding]:
    """No running sensor has been failing for minutes."""
    if site.instance is None:
        return
    for door in sensor_status.broken(site.instance, site.pipelines):
        yield ProbeFinding(
            "error",
            f"sensor {door.sensor}",
            f"it has failed since {door.since:%Y-%m-%d %H:%M} UTC: {door.error.splitlines()[0]}",
            f"a successful tick: {'days are not exported' if door.is_of_exports else 'files that land are not scored'} "
            "until then",
            "fix what the error reports; its ticks are in the UI under Automation",
        )


@probe("dead runs", "instance", seconds=60)
def dead_runs(site: Site) -> Iterator[ProbeFinding]:
    """The process of every started run is alive, and no ended run holds a slot that others wait for."""
    if site.instance is None:
        return
    is_unknown = is_of_this_machine(site.instance) and not isinstance(site.instance.event_log_storage, EventLog)
    if is_unknown and site.home and (site.home / "dagster.yaml").is_file():
        yield ProbeFinding(
            "warning",
            "dagster.yaml: event_log_storage",
            "it is Dagster's own: whether a run still has a process is "
            "not known, and one that is killed holds its slot until its maximum runtime",
            "batch_scoring.defs.execution.sqlite_event_log, EventLog",
            f"copy the block from {PROJECT}/dagster.yaml",
        )
    for run in find_dead_runs(site.instance):
        yield ProbeFinding(
            "warning",
            f"run {run}",
            "it is STARTED, and its process is gone: it holds a slot of the queue and its day",
            "a process on this machine",
            "the daemon's sensor dead_runs ends it within a minute, any "
            f"batch-scoring backfill too; by hand in the UI: /runs/{run}, terminate",
        )
    storage = site.instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    for pool in sorted(storage.get_concurrency_keys()):
        for run in sorted(storage.get_concurrency_info(pool).active_run_ids):
            record = site.instance.get_run_record_by_id(run)
            if record is None or record.dagster_run.is_finished:
                yield ProbeFinding(
                    "warning",
                    f"pool {pool}",
                    f"run {run} has ended and still holds a slot: others wait for it",
                    "slots held only by running runs",
                    "in the UI: Deployment, Concurrency, free the slots of that run",
                )


@probe("waiting alerts", "instance")
def waiting_alerts(site: Site) -> Iterator[ProbeFinding]:
    """No message waits for a channel that has rejected it."""
    if site.instance is None or site.instance.daemon_cursor_storage is None:
        return
    outbox = Outbox(site.instance.daemon_cursor_storage, channels.of("ALERT_URLS"))
    for text in outbox.waiting():
        if not text.endswith("last error: None"):
            yield ProbeFinding("warning", "alerts", text, "no waiting message", "batch-scoring doctor --send-test")


def switch_on(site: Site, name: str) -> str:
    """The remedy that starts a sensor or schedule; the dagster command does not find the instance by itself."""
    kind = "schedule" if name.endswith("_on_schedule") else "sensor"
    home = shell_word(str(site.home or PROJECT))
    return f"switch it on in the UI, or: DAGSTER_HOME={home} dagster {kind} start {name} -w workspace.yaml"


def _starters(pipeline: Pipeline) -> dict[str, str]:
    """Sensors and schedules that start the pipeline's days, with their default status from the spec."""
    return {
        **sensor_status.sensors_of(pipeline),
        f"{job_name(pipeline)}_on_schedule": pipeline.spec.schedule.default_status,
    }


def _is_new(home: Path) -> bool:
    """Whether the instance has no database yet: it is SQLite and the file does not exist."""
    runs = [file for file in sqlite_databases.files(home) if file.name == "runs.db"]
    return bool(runs) and not runs[0].is_file()
