"""The protocol between a day and the sink that it is exported to.

A sink holds a *marker* for each day: the version of the day whose rows it shows. Rows and marker change in one atomic
step that compares versions, so a repeated export does nothing, and one that comes late cannot replace a newer version.
Versions of two steps cannot be compared: one replaces the other only if it is what the export has found when it began.
The marker is the truth; the receipt in the pipeline's state is its copy, from which the sensor and the checks learn
what is exported without asking the sink.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

import pyarrow as pa


class Version(NamedTuple):
    """A published version of a day; of one step's versions, a later one is greater."""

    created: int
    """When the table was created, in milliseconds since 1970: a table that was made anew begins a new count."""
    transaction: int
    """Number of commits to the day in that table."""


@dataclass(frozen=True)
class Marker:
    """What a sink shows of a day."""

    version: Version
    rows: int
    run_id: str
    """Of the run that exported it."""
    exported_at: datetime
    of: str = ""
    """The step whose version it is; empty in markers from before it was written down."""


Outcome = Literal["exported", "unchanged", "superseded", "kept"]
"""exported: the sink now shows this version; unchanged: it did before; superseded: it shows a newer one, or one of
another step that came meanwhile; kept: it shows an older one, or one of another step, which is to stay."""

Replaces = Literal["nothing", "older", "same"]
"""What a delivery may replace: nothing, as what is shown is to stay; an older version; the same version too."""


@dataclass(frozen=True)
class Delivery:
    """The rows of a version of a day, to be exported."""

    pipeline: str
    export: str
    """Name of the export in the spec."""
    day: str
    version: Version
    run_id: str
    schema: pa.Schema
    """Of the rows. Text columns are plain, none is dictionary-encoded."""
    read: Callable[[], Iterator[pa.RecordBatch]]
    """Read the rows from the beginning, in the export's order; may be called again."""
    replaces: Replaces = "older"
    of: str = ""
    """The step whose version it is, as in the marker: `predictions` or `decisions`."""
    instead_of: Marker | None = None
    """What the sink showed when the export began, and is to be replaced without comparing versions: another step's, or
    the same version, which an export of another step was about to replace."""

    def refused(self, shown: Marker | None) -> Outcome | None:
        """Why this version is not shown in place of what the sink shows of the day; None if it is."""
        if shown is None:
            return None
        if shown == self.instead_of or self.is_of_another_step(shown):
            return self._refused_instead_of(shown)
        if shown.version < self.version and self.replaces != "nothing":
            return None
        if shown.version == self.version:
            return None if self.replaces == "same" else "unchanged"
        return "superseded" if shown.version > self.version else "kept"

    def is_of_another_step(self, shown: Marker) -> bool:
        """Whether the sink shows another step: each has a table with a count of its own, and neither is the newer."""
        return bool(shown.of and self.of) and shown.of != self.of

    def _refused_instead_of(self, shown: Marker) -> Outcome | None:
        """Only what was there before is replaced: an export of the step that the spec names now may have come since."""
        if self.replaces == "nothing":
            return "kept"
        return None if shown == self.instead_of else "superseded"


@dataclass(frozen=True)
class Delivered:
    """What became of a delivery."""

    outcome: Outcome
    marker: Marker
    """What the sink shows now."""
    bytes: int = 0
    """Bytes that this delivery has written, where the sink knows."""
    where: tuple[str, ...] = ()
    """Addresses of what was written, without user names and passwords."""


class Sink(Protocol):
    """A place that days are exported to."""

    @property
    def address(self) -> str:
        """Where it is, without user names and passwords."""

    def marker(self, day: str) -> Marker | None:
        """What it shows of a day; None if nothing.

        Raises:
            SinkError: it does not answer; the same request may succeed later.
            SinkRefusedError: it refuses, and will refuse again.
        """

    def deliver(self, delivery: Delivery) -> Delivered:
        """Write the rows unseen, then show them and set the marker in one atomic step, unless the delivery is refused.

        `Delivery.refused` says whether it is, and is asked in that step: of what the sink shows then.

        Raises:
            SinkError: it does not answer, or is full; what it showed before stands.
            SinkRefusedError: it refuses the rows or the account; what it showed before stands.
            RowsLostError: it has stored fewer or more rows than were sent; what it showed before stands.
        """

    def problems(self, schema: pa.Schema) -> Iterable[str]:
        """What would keep rows of this schema from being exported, each with the remedy; writes nothing that stays."""
