"""Progress of a long step: lines in a log, a bar on a terminal."""

from collections.abc import Callable
from time import monotonic
from typing import TextIO

from batch_scoring.runtime.printable import unguarded

EVERY = 10.0
"""Seconds between two lines."""

_REDRAWN = 0.2
"""Seconds between two states of the bar."""
_WIDTH = 30
"""In characters."""


class Progress:
    """Counts rows against a known total; logs percent, rate and time left at intervals."""

    def __init__(self, total: int, log: Callable[[str], object], done: str) -> None:
        """`done`: the participle in the line, for example `scored`."""
        self._total, self._log, self._done = total, log, done
        self._rows = 0
        self._began = self._last = monotonic()

    def advance(self, rows: int) -> None:
        """Count rows; log a line if the last one is old enough."""
        self._rows += rows
        now = monotonic()
        if now - self._last < EVERY:
            return
        self._last = now
        speed = self._rows / (now - self._began)
        left = (self._total - self._rows) / speed if speed else 0.0
        percent = 100 * self._rows / max(self._total, 1)
        so_far = f"{self._done} {self._rows:,} of {self._total:,} rows ({percent:.0f} %)"
        self._log(f"{so_far}, {speed:,.0f} rows/s, {left:.0f} s left")


class Bar:
    """Progress bar on a terminal; prints nothing to any other stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = unguarded(stream) if stream.isatty() else None
        self._began, self._last, self._shown = monotonic(), 0.0, 0

    def show(self, share: float, rows: int) -> None:
        """Redraw the bar, unless it was drawn just now.

        Args:
            share: of the work done, from 0 to 1.
            rows: done so far.
        """
        now = monotonic()
        if self._stream is None or now - self._last < _REDRAWN:
            return
        self._last, seconds = now, max(now - self._began, 1e-3)
        left = f"{seconds / share * (1 - share):,.0f} s left" if share else ""
        full = round(_WIDTH * share)
        line = f"{'█' * full}{'░' * (_WIDTH - full)} {share:4.0%}  {rows:,} rows, {rows / seconds:,.0f} rows/s  {left}"
        self._stream.write(f"\r{line:<{self._shown}}")
        self._stream.flush()
        self._shown = len(line)

    def clear(self) -> None:
        """Erase the bar, before other lines are written."""
        if self._stream is not None and self._shown:
            self._stream.write(f"\r{'':<{self._shown}}\r")
            self._stream.flush()
            self._shown = 0
