"""Temporary files and objects of probes, removed in any case, also when the command is interrupted."""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from batch_scoring.errors import StoppedError

PREFIX = ".batch_scoring_doctor_"
"""Prefix of their names, which excludes them from the data."""

_left: dict[str, Callable[[], object]] = {}
_stopping = threading.Event()


@contextlib.contextmanager
def trace(name: str, remove: Callable[[], object]) -> Iterator[None]:
    """Remove what the block writes when it ends.

    Args:
        name: of what is written.
        remove: removes it; may be called if it does not exist.

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
    """A unique name for a probe file."""
    return f"{PREFIX}{os.getpid()}_{uuid.uuid4().hex[:12]}"


def remove_all(seconds: float = 1.0) -> list[str]:
    """Stop writing, and remove what the probes have not removed themselves.

    Returns:
        Names of what may be left, because its store did not answer in time.
    """
    _stopping.set()
    try:
        _wait(seconds)  # running probes remove their own
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
    with contextlib.suppress(Exception):  # the probe reports the store's error
        remove()
        _left.pop(name, None)
