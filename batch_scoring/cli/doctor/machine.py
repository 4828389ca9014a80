"""Probes of the machine: the installed code, disks, and alert channels."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from batch_scoring.cli.doctor.probe import ProbeFinding, Site, probe
from batch_scoring.cli.doctor.stores import existing
from batch_scoring.config.loader import PROJECT
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import StateError
from batch_scoring.operations.alerting import action_alerts, channels
from batch_scoring.operations.alerting.channels import Message
from batch_scoring.runtime.printable import shell_word
from batch_scoring.storage.state import State, StepName

LEAST_FREE, SHORT_FREE = 64 * 2**20, 512 * 2**20
"""Free bytes: runs fail with less than the first; less than the second is a warning."""
NIGHTS = 30
"""Days that a disk should have room for."""
LEAST_INODES, SHORT_INODES = 500, 10_000
RECENT_DAYS = 7
"""Newest days from which the size of a day is estimated."""
MEMORY_DISKS = ("tmpfs", "ramfs")
NETWORK_DISKS = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs")

_PYTHON = shell_word(sys.executable)


@probe("code")
def code(_site: Site) -> Iterator[ProbeFinding]:
    """The code that runs is that of the checkout in which the command was started."""
    here = Path.cwd()
    if (here / "batch_scoring" / "definitions.py").is_file() and here.resolve() != PROJECT.resolve():
        yield ProbeFinding(
            "warning",
            str(here),
            f"this is a checkout, and the code that runs is {PROJECT}'s",
            "one of the two",
            f"{_PYTHON} -m pip install --editable {shell_word(str(here))}, or go to {PROJECT}",
        )


@probe("disk", "output")
def disk(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """There is room for a month of days like the latest ones, or for uploads in progress."""
    sizes = _recent_sizes(pipeline)
    most, mean = max(sizes, default=0), sum(sizes) / len(sizes) if sizes else 0.0
    if pipeline.output.is_local:
        kept = f"{NIGHTS} days like the latest ones"
        yield from _room(existing(Path(pipeline.output.uri)), int(2 * most), int(NIGHTS * mean), kept)
    else:
        waiting = "shards that wait there for their upload"
        yield from _room(Path(tempfile.gettempdir()), most, 2 * most, waiting)


@probe("lasting storage", "output")
def lasting(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """The pipeline's output survives a restart of the machine."""
    if pipeline.output.is_local:
        yield from _fleeting(
            existing(Path(pipeline.output.uri)), "tables and state", "the data root (BATCH_SCORING_DATA)"
        )


@probe("lasting instance")
def lasting_instance(site: Site) -> Iterator[ProbeFinding]:
    """The instance's folder survives a restart, is not a network mount, and has room."""
    if site.home is None or not site.home.is_dir():
        return
    yield from _fleeting(site.home, "runs, sensors' memory and waiting alerts", "DAGSTER_HOME")
    yield from _room(site.home, 0, 0, "runs and their logs")
    if (kind := _file_system(site.home)) in NETWORK_DISKS and (site.home / "history").is_dir():
        yield ProbeFinding(
            "warning",
            str(site.home),
            f"SQLite on {kind}: its locks do not work there",
            "a local disk, or PostgreSQL",
            "set DAGSTER_HOME to a local folder, or give dagster.yaml a PostgreSQL storage",
        )


@probe("alert channels", seconds=60)
def alert_channels(site: Site) -> Iterator[ProbeFinding]:
    """Every alert channel has a valid address, and with --send-test accepts a message."""
    named = channels.of("ALERT_URLS")
    if not named:
        yield ProbeFinding(
            "warning" if site.send_test else "info",
            "ALERT_URLS",
            "not set: failures are only logged",
            "addresses in apprise's format",
            "export ALERT_URLS=…; docs/guides/alerts.md has examples",
        )
    for variable in action_alerts.variables(site.pipelines):
        if not channels.of(variable):
            yield ProbeFinding(
                "warning",
                variable,
                "not set, though alerts.actions in a spec names it: that team is told nothing",
                "addresses in apprise's format",
                f"export {variable}=…, where the Dagster daemon and its code server run",
            )
        named += channels.of(variable)
    for channel in named:
        if channel.scheme is None:
            yield ProbeFinding(
                "warning",
                str(channel),
                "apprise does not understand it: nothing is sent there",
                "an address in apprise's format",
                "correct that address; commas and spaces in passwords must be URL-encoded",
            )
    if site.send_test:
        text = "This channel receives the alerts of batch_scoring."
        message = Message(topic="test", title="batch_scoring: test message", body=text, kind="info")
        waiting = {channel: [message] for channel in named if channel.scheme}
        for channel, error in channels.send(waiting, seconds=30):
            if error:
                yield ProbeFinding(
                    "warning",
                    str(channel),
                    f"the test message was not delivered: {error}",
                    "a channel that accepts it",
                    "check whether its host can be reached from here, and whether its token is still valid",
                )


def _recent_sizes(pipeline: Pipeline) -> list[int]:
    """Bytes that the newest days wrote, in tables and quarantine."""
    state = State(pipeline.output)
    names = pipeline.output.subfolder("state").children().folders
    days = sorted(name.removeprefix("dt=") for name in names if name.startswith("dt="))[-RECENT_DAYS:]
    by_day: dict[str, int] = dict.fromkeys(days, 0)
    for step in get_args(StepName):
        try:
            for published_day in state.published_days_of(step, days):
                by_day[published_day.day] += published_day.table.bytes + published_day.quarantine.bytes
        except StateError:  # the probe of the tables' rows reports it
            continue
    return [size for size in by_day.values() if size]


def _room(folder: Path, needed: int, wanted: int, what: str) -> Iterator[ProbeFinding]:
    """Findings about free bytes and inodes: `needed` for a run, `wanted` for `what`."""
    found = os.statvfs(folder)
    free, inodes = found.f_bavail * found.f_frsize, found.f_favail
    least, short = max(needed, LEAST_FREE), max(wanted, SHORT_FREE)
    if free < short:
        yield ProbeFinding(
            "error" if free < least else "warning",
            f"{folder} ({_file_system(folder)})",
            f"{_shown(free)} free",
            f"at least {_shown(least)} for a run, {_shown(short)} for {what}",
            f"make room (du -xh {shell_word(str(folder))} | sort -h | tail), or put it on a larger disk",
        )
    if found.f_files and inodes < SHORT_INODES:  # some file systems have no fixed number of inodes
        yield ProbeFinding(
            "error" if inodes < LEAST_INODES else "warning",
            f"{folder} ({_file_system(folder)})",
            f"{inodes:,} inodes free: no more files than that can be created",
            f"at least {SHORT_INODES:,}",
            f"remove small files: du -x --inodes {shell_word(str(folder))} | sort -n | tail",
        )


def _fleeting(folder: Path, what: str, setting: str) -> Iterator[ProbeFinding]:
    kind = _file_system(folder)
    if kind in MEMORY_DISKS:
        yield ProbeFinding(
            "warning",
            str(folder),
            f"it is in memory ({kind}): {what} are gone when the machine restarts",
            "a disk",
            f"move {setting} to a disk",
        )
    elif kind == "overlay":
        yield ProbeFinding(
            "info",
            str(folder),
            f"it is in a container's own layer: {what} are gone with the container",
            remedy=f"mount a volume for {setting}",
        )


def _file_system(folder: Path) -> str:
    """Type of the file system that a folder is on."""
    import psutil

    place = folder.resolve()
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((mounts[above] for above in (place, *place.parents) if above in mounts), "unknown")


def _shown(size: int) -> str:
    value = float(size)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
