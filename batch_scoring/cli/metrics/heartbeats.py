"""Heartbeats of the Dagster daemon, which it records in the instance every 30 seconds."""

import functools
from collections.abc import Mapping
from contextlib import ExitStack

import dagster as dg

from batch_scoring.cli import instance


@functools.cache
def _opened() -> dg.DagsterInstance:
    """The instance, opened for the life of this process; its database connects anew when it must."""
    return ExitStack().enter_context(instance.opened())


def are_known() -> bool:
    """Whether this process is told of an instance: an image sets DAGSTER_HOME also where none is mounted."""
    home = instance.home()
    return home is not None and (home / "dagster.yaml").is_file()


def read() -> Mapping[str, float]:
    """When each needed part of the daemon was last alive, in seconds since 1970; none if it never ran."""
    found = _opened()
    needed = set(found.get_required_daemon_types())
    return {kind: beat.timestamp for kind, beat in found.get_daemon_heartbeats().items() if kind in needed}
