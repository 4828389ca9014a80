"""The machine and what is installed on it: libraries, the code that runs, time zones, disks, alert channels."""

import importlib
import importlib.metadata
import os
import sys
import tempfile
import tomllib
import zoneinfo
from collections.abc import Iterator
from pathlib import Path

from batch_scoring.cli.doctor.probe import Finding, Site, probe
from batch_scoring.cli.doctor.stores import existing
from batch_scoring.config.loader import PROJECT
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import StateError
from batch_scoring.operations.alerting import channels
from batch_scoring.operations.alerting.channels import Message
from batch_scoring.runtime.printable import shell_word
from batch_scoring.storage.state import State

NEEDED = ("torch", "pandas", "pandera.pandas", "pyarrow", "deltalake", "safetensors.torch")
"""What every night imports."""
LEAST_FREE, SHORT_FREE = 64 * 2**20, 512 * 2**20
"""Bytes: a night fails with less than the first, whatever it writes; the second is little."""
NIGHTS = 30
"""Days that a disk should have room for."""
LEAST_INODES, SHORT_INODES = 500, 10_000
RECENT_DAYS = 7
"""Newest accounts whose size tells what a day needs."""
MEMORY_DISKS = ("tmpfs", "ramfs")
NETWORK_DISKS = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs")

_PYTHON = shell_word(sys.executable)


@probe("libraries", gives="libraries", seconds=60)
def libraries(_site: Site) -> Iterator[Finding]:
    """Python and the libraries are of the versions that pyproject.toml asks for, and import."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    python, requirements = _asked_for()
    here = ".".join(map(str, sys.version_info[:3]))
    install = f"{_PYTHON} -m pip install --constraint constraints.txt --editable {shell_word(str(PROJECT))}"
    if not SpecifierSet(python).contains(here):
        yield Finding("error", sys.executable, f"Python {here}", python, "make the virtual environment with another")
    for requirement in map(Requirement, requirements):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("error", requirement.name, "not installed", str(requirement), install)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield Finding("warning", requirement.name, f"version {version}", str(requirement), install)
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except Exception as error:  # a library may raise anything while it is imported
            yield Finding("error", name, f"it does not import: {type(error).__name__}: {error}", "an import", install)


@probe("code")
def code(_site: Site) -> Iterator[Finding]:
    """The code that runs is that of the checkout in which the command was typed."""
    here = Path.cwd()
    if (here / "batch_scoring" / "definitions.py").is_file() and here.resolve() != PROJECT.resolve():
        yield Finding(
            "warning",
            str(here),
            f"this is a checkout, and the code that runs is {PROJECT}'s",
            "one of the two",
            f"{_PYTHON} -m pip install --editable {shell_word(str(here))}, or go to {PROJECT}",
        )


@probe("time zones")
def time_zones(_site: Site) -> Iterator[Finding]:
    """This machine knows time zones: days begin in them."""
    if len(zoneinfo.available_timezones()) < 100:
        yield Finding(
            "error",
            f"time zone data ({', '.join(zoneinfo.TZPATH) or 'no folder'})",
            "none is installed",
            "the IANA database",
            f"apt-get install tzdata, or {_PYTHON} -m pip install tzdata",
        )


@probe("disk", "output")
def disk(pipeline: Pipeline) -> Iterator[Finding]:
    """There is room for a month of days like the last ones, or for uploads in the making."""
    sizes = _recent_sizes(pipeline)
    most, mean = max(sizes, default=0), sum(sizes) / len(sizes) if sizes else 0.0
    if pipeline.output.is_local:
        kept = f"{NIGHTS} days like the last ones"
        yield from _room(existing(Path(pipeline.output.uri)), int(2 * most), int(NIGHTS * mean), kept)
    else:
        waiting = "shards that wait there for their upload"
        yield from _room(Path(tempfile.gettempdir()), most, 2 * most, waiting)


@probe("temporary files")
def temporary_files(_site: Site) -> Iterator[Finding]:
    """Temporary files can be written."""
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"probe")
            file.flush()
    except OSError as error:
        yield Finding(
            "error",
            tempfile.gettempdir(),
            f"no temporary file can be written: {error}",
            "a folder that takes them",
            "make room or correct its rights, or set TMPDIR",
        )


@probe("lasting storage", "output")
def lasting(pipeline: Pipeline) -> Iterator[Finding]:
    """What the pipeline writes outlives a restart of the machine."""
    if pipeline.output.is_local:
        yield from _fleeting(
            existing(Path(pipeline.output.uri)), "tables and state", "the data root (BATCH_SCORING_DATA)"
        )


@probe("lasting instance")
def lasting_instance(site: Site) -> Iterator[Finding]:
    """Dagster's folder outlives a restart, is no network mount, and has room."""
    if site.home is None or not site.home.is_dir():
        return
    yield from _fleeting(site.home, "runs, sensors' memory and waiting alerts", "DAGSTER_HOME")
    yield from _room(site.home, 0, 0, "runs and their logs")
    if (kind := _file_system(site.home)) in NETWORK_DISKS and (site.home / "history").is_dir():
        yield Finding(
            "warning",
            str(site.home),
            f"SQLite on {kind}: its locks do not hold there",
            "a local disk, or PostgreSQL",
            "set DAGSTER_HOME to a local folder, or give dagster.yaml a PostgreSQL storage",
        )


@probe("alert channels", seconds=60)
def alert_channels(site: Site) -> Iterator[Finding]:
    """Every address of ALERT_URLS is understood, and with --send-test takes a message."""
    named = channels.parse(os.environ.get("ALERT_URLS", ""))
    if not named:
        yield Finding(
            "warning" if site.send_test else "info",
            "ALERT_URLS",
            "not set: failures go to a log, nobody is told",
            "addresses as apprise has them",
            "export ALERT_URLS=…; docs/guides/alerts.md has examples",
        )
    for channel in named:
        if channel.scheme is None:
            yield Finding(
                "warning",
                str(channel),
                "apprise does not understand it: nobody is told there",
                "an address as apprise has them",
                "correct that address; commas and spaces in passwords want URL encoding",
            )
    if site.send_test:
        text = "This channel receives what batch_scoring tells."
        message = Message(topic="test", title="batch_scoring: test message", body=text, kind="info")
        waiting = {channel: [message] for channel in named if channel.scheme}
        for channel, error in channels.send(waiting, seconds=30):
            if error:
                yield Finding(
                    "warning",
                    str(channel),
                    f"the test message was not delivered: {error}",
                    "a channel that takes it",
                    "see whether its host is reached from here, and whether its token is still good",
                )


def _asked_for() -> tuple[str, list[str]]:
    """The bounds on Python and on the libraries: of the checkout, else of what is installed."""
    file = PROJECT / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        return project["requires-python"], project["dependencies"]
    installed = importlib.metadata.metadata("batch_scoring")
    return installed["Requires-Python"] or "", installed.get_all("Requires-Dist") or []


def _recent_sizes(pipeline: Pipeline) -> list[int]:
    """Bytes that the newest days have written, tables and quarantine."""
    state = State(pipeline.output)
    names = pipeline.output.subfolder("state").children().folders
    days = sorted(name.removeprefix("dt=") for name in names if name.startswith("dt="))[-RECENT_DAYS:]
    by_day: dict[str, int] = dict.fromkeys(days, 0)
    for step in ("validated_features", "predictions"):
        try:
            for account in state.accounts_of(step, days):
                by_day[account.day] += account.table.bytes + account.quarantine.bytes
        except StateError:  # the probe of the tables' rows names it
            continue
    return [size for size in by_day.values() if size]


def _room(folder: Path, needed: int, wanted: int, what: str) -> Iterator[Finding]:
    """Whether a disk has so many bytes, and inodes: `needed` for a night, `wanted` for `what`."""
    found = os.statvfs(folder)
    free, inodes = found.f_bavail * found.f_frsize, found.f_favail
    least, short = max(needed, LEAST_FREE), max(wanted, SHORT_FREE)
    if free < short:
        yield Finding(
            "error" if free < least else "warning",
            f"{folder} ({_file_system(folder)})",
            f"{_shown(free)} free",
            f"at least {_shown(least)} for a night, {_shown(short)} for {what}",
            f"make room (du -xh {shell_word(str(folder))} | sort -h | tail), or put it on a larger disk",
        )
    if found.f_files and inodes < SHORT_INODES:  # some file systems have no fixed number of inodes
        yield Finding(
            "error" if inodes < LEAST_INODES else "warning",
            f"{folder} ({_file_system(folder)})",
            f"{inodes:,} inodes free: that many more files and no more",
            f"at least {SHORT_INODES:,}",
            f"remove small files: du -x --inodes {shell_word(str(folder))} | sort -n | tail",
        )


def _fleeting(folder: Path, what: str, setting: str) -> Iterator[Finding]:
    kind = _file_system(folder)
    if kind in MEMORY_DISKS:
        yield Finding(
            "warning",
            str(folder),
            f"it is in memory ({kind}): {what} are gone when the machine restarts",
            "a disk",
            f"move {setting} to a disk",
        )
    elif kind == "overlay":
        yield Finding(
            "info",
            str(folder),
            f"it is in a container's own layer: {what} are gone with the container",
            remedy=f"mount a volume for {setting}",
        )


def _file_system(folder: Path) -> str:
    """Of the mount that a folder is on."""
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
