"""A reading that may hang: in a thread of its own, one at a time, with what was read last.

A store or a database that does not answer holds its thread for minutes; who asks meanwhile gets an answer in time.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

Content = TypeVar("Content")


@dataclass(frozen=True)
class Reading(Generic[Content]):
    """What was read last, and how that went."""

    content: Content | None
    """Of the last reading that succeeded; None if none has."""
    is_fresh: bool
    """Whether that one was made for this question."""
    at: float
    """When it ended, in seconds since 1970."""
    seconds: float
    """How long it took."""
    error: str = ""
    """Why the content is not fresh."""


class BackgroundRead(Generic[Content]):
    """One source."""

    def __init__(self, name: str, read: Callable[[], Content]) -> None:
        """`name`: of its thread; `read`: asks the source."""
        self._name, self._read = name, read
        self._lock = threading.Lock()
        self._underway: Future[None] | None = None
        self._last = Reading[Content](None, False, 0.0, 0.0)

    def begin(self) -> "Future[None]":
        """Begin to read, unless a reading is underway."""
        with self._lock:
            if self._underway is None or self._underway.done():
                self._underway = Future()
                # a daemon: a process that has its answer does not wait for a store that hangs
                threading.Thread(target=self._run, args=(self._underway,), name=self._name, daemon=True).start()
            return self._underway

    def latest(self, until: float, underway: "Future[None] | None" = None) -> Reading[Content]:
        """Return what was read last.

        Args:
            until: how long to wait for the reading, by the monotonic clock.
            underway: the reading, if it was begun before.
        """
        underway = underway or self.begin()
        wait([underway], max(0.0, until - time.monotonic()))
        if not underway.done():
            return self._stale("it has not answered yet")
        if error := underway.exception():
            return self._stale(" ".join(f"{type(error).__name__}: {error}".split()))
        return self._last

    def _stale(self, error: str) -> Reading[Content]:
        last = self._last
        return Reading(last.content, False, last.at, last.seconds, error)

    def _run(self, underway: "Future[None]") -> None:
        began = time.perf_counter()
        try:
            content = self._read()
        except BaseException as error:  # whatever it is: who asks is told, and other sources do not depend on it
            underway.set_exception(error)
        else:
            self._last = Reading(content, True, time.time(), time.perf_counter() - began)
            underway.set_result(None)
