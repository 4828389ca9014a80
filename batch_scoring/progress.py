"""How far a long step has come, in the log at a rate that a person can read."""

from collections.abc import Callable
from time import monotonic

EVERY = 10.0
"""Seconds between two lines."""


class Progress:
    """Counts rows of a known total and logs percent, speed and time left now and then."""

    def __init__(self, total: int, log: Callable[[str], object], done: str) -> None:
        """`done` is the participle of the line, for example scored."""
        self._total, self._log, self._done = total, log, done
        self._rows = 0
        self._began = self._last = monotonic()

    def advance(self, rows: int) -> None:
        """Count rows; say so if enough time has passed since the last line."""
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
