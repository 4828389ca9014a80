"""The first rows of an action among a day's decisions, found in constant memory."""

import pyarrow as pa
import pyarrow.compute as pc

_IN_ORDER = [("rank", "ascending"), ("score", "descending")]


class FirstRows:
    """The rows with an action that come first: by rank, then those without a rank by score, the highest first.

    The control group has ranks too, and no action; a function need not give ranks at all.
    """

    def __init__(self, action: str, count: int) -> None:
        """`count`: maximum number of rows."""
        self._action, self._count = action, count
        self._kept: pa.Table | None = None

    def add(self, decisions: pa.RecordBatch) -> None:
        """Look at more rows, with at least action, rank and score."""
        rows = pa.Table.from_batches([decisions.filter(pc.equal(decisions.column("action"), self._action))])
        if self._kept is not None:
            rows = pa.concat_tables([self._kept, rows])
        self._kept = rows.take(pc.sort_indices(rows, sort_keys=_IN_ORDER)[: self._count])

    def column(self, name: str) -> list[object]:
        """The cells of a column."""
        return [] if self._kept is None else self._kept[name].to_pylist()

    def rows(self) -> list[dict[str, object]]:
        """All cells."""
        return [] if self._kept is None else self._kept.to_pylist()
