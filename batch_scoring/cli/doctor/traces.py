"""What a probe writes for a moment, and takes away whatever happens, also when the command is interrupted."""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from batch_scoring.errors import StoppedError

PREFIX = ".batch_scoring_doctor_"
"""Names of probe files begin with it: nobody takes them for data."""

_left: dict[str, Callable[[], object]] = {}
_stopping = threading.Event()


@contextlib.contextmanager
def trace(name: str, remove: Callable[[], object]) -> Iterator[None]:
    """Around what writes something: it is removed at the end of the block.

    Args:
        name: of what is written.
        remove: takes it away; may be called when there is nothing.

    Raises:
        StoppedError: the command is being ended.
    """
    if _stopping.is_set():
        raise StoppedError("the command is being ended")
    _left[name] = remove
    try:
        yield
    finally:
        if _left.pop(name, None):
            remove()


def new_name() -> str:
    """A name for a probe file that nobody else has."""
    return f"{PREFIX}{os.getpid()}_{uuid.uuid4().hex[:12]}"


def remove_all(seconds: float = 1.0) -> list[str]:
    """Write nothing any more, and remove what probes have not yet removed themselves.

    Returns:
        What may still be there, because its store does not answer in time.
    """
    _stopping.set()
    try:
        _wait(seconds)  # those at work remove theirs by themselves
        for name, remove in list(_left.items()):
            threading.Thread(target=_remove, args=(name, remove), daemon=True).start()
        _wait(seconds)
        return sorted(_left)
    finally:
        _left.clear()
        _stopping.clear()


def _wait(seconds: float) -> None:
    until = time.monotonic() + seconds
    while _left and time.monotonic() < until:
        time.sleep(0.02)


def _remove(name: str, remove: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):  # the store's trouble is told by the probe
        remove()
        _left.pop(name, None)
