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


def read() -> Mapping[str, float]:
    """When each needed part of the daemon was last alive, in seconds since 1970; none if it never ran."""
    found = _opened()
    beats, needed = found.get_daemon_heartbeats(), set(found.get_required_daemon_types())
    return {kind: beat.timestamp for kind, beat in beats.items() if kind in needed}
