"""Rows as the tensors of a forward pass, in groups of rows whose tensors have one shape.

Rows of a table are one group. Texts are grouped by length, which depends on each text alone, so that no row is padded
because of another.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

GRID = 64
"""Every forward pass has a multiple of this many rows. From 16 rows on, results of a row were bit-equal in every batch
size tried, but for networks that end in a sigmoid: vector loops of 2 x 16 numbers with another tail need 32. With 64
rows every tensor has a multiple of 64 numbers, whatever its width."""

Tensors = dict[str, np.ndarray]
"""The inputs of a forward pass by name, each of the same number of rows."""


@dataclass(frozen=True)
class FailedRow:
    """A row without a score."""

    position: int
    """In its record batch, from 0."""
    rule: str
    """input_is_finite, network_raises, output_is_finite, transform_raises, or a rule about engineered features."""
    detail: str
    column: str = ""
    """The engineered column that breaks the rule, if one does."""


@dataclass(frozen=True)
class Group:
    """Rows whose tensors have one shape."""

    tensors: Tensors
    """By input, padded to the grid with copies of the last row."""
    rows: int
    """Without the padding."""
    positions: np.ndarray | None = None
    """int64: of the rows in their record batch; all rows in order if None."""
    cells: int = 1
    """Size of a row beside those of other groups: tokens of a text."""

    @property
    def padded(self) -> int:
        """Rows with the padding."""
        return len(next(iter(self.tensors.values())))

    def between(self, start: int, stop: int) -> Tensors:
        """The tensors of some of the padded rows, as views."""
        return {name: values[start:stop] for name, values in self.tensors.items()}

    def places(self, start: int, stop: int) -> slice | np.ndarray:
        """Where rows of the group, without padding, are in their record batch."""
        return slice(start, stop) if self.positions is None else self.positions[start:stop]


@dataclass(frozen=True)
class Encoded:
    """A record batch, encoded."""

    groups: tuple[Group, ...]
    failed: tuple[FailedRow, ...] = ()
    """Rows that no tensor can hold; they may be among those of a group all the same."""
    unknown: dict[str, dict[str, int]] = field(default_factory=dict)
    """Counts of values that the model was not trained on, by categorical column; they are scored as unknown."""


def padded(rows: int) -> int:
    """The next multiple of the grid."""
    return max(GRID, -(-rows // GRID) * GRID)


def pad(tensors: Mapping[str, np.ndarray], rows: int) -> None:
    """Fill the padding with copies of the last real row: zeros may be what the network cannot score."""
    if rows:
        for values in tensors.values():
            values[rows:] = values[rows - 1]


def taken(tensors: Tensors, rows: int, chosen: slice | np.ndarray) -> Tensors:
    """A copy of some rows, padded anew. `rows`: how many they are."""
    copies = {}
    for name, values in tensors.items():
        copies[name] = np.zeros((padded(rows), *values.shape[1:]), values.dtype)
        copies[name][:rows] = values[chosen]
    pad(copies, rows)
    return copies


def single(tensors: Tensors, rows: int) -> Iterator[Group]:
    """All rows as one group. `tensors`: padded already, but for the values of the padding."""
    pad(tensors, rows)
    yield Group(tensors, rows)
