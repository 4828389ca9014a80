"""Rows of different lengths, and the widths that they are padded to.

A row's width depends on its own length alone, and so do its scores. Padding to the longest row of a batch, as is usual,
changed 5 % of a transformer's scores by 6e-8 with other neighbours, and 86 % of those of a network that reads backwards
by 2e-3.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

STEP, FINE = 8, 64
"""Widths are multiples of `STEP` up to `FINE`, where a step is a large share of a text: with multiples of 16, tickets
of 34 tokens took 10 % longer, and subject lines of 8 tokens twice as long."""


@dataclass(frozen=True)
class Ragged:
    """Rows of numbers, each of its own length."""

    values: np.ndarray
    """Of all rows, one after the other."""
    offsets: np.ndarray
    """int64[rows + 1]: where each row begins and ends."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64[rows]."""
        return np.diff(self.offsets)

    def matrix(self, positions: np.ndarray, rows: int, width: int, padding: int) -> np.ndarray:
        """Some rows as a matrix[rows, width]; what they leave is `padding`."""
        found = np.full((rows, width), padding, self.values.dtype)
        lengths = self.lengths[positions]
        is_real = np.arange(width) < lengths[:, None]
        places = self.offsets[positions][:, None] + np.arange(width)
        found[: len(positions)][is_real] = self.values[places[is_real]]
        return found


def widths(longest: int, *, exact: bool = False) -> np.ndarray:
    """The widths up to the longest row: 8, 16, 24 … 64, then 96, 128, 192, 256 and so on, two a doubling.

    Args:
        longest: the last width.
        exact: whether each length is a width of its own, so that nothing is padded.
    """
    if exact:
        return np.arange(1, longest + 1)
    found = [*range(STEP, FINE + 1, STEP)]
    while found[-1] < longest:
        found += [3 * found[-1] // 2, 2 * found[-1]]
    return np.array([*(width for width in found if width < longest), longest], np.int64)


def by_width(lengths: np.ndarray, steps: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each of the widths `steps` that any row has, with the positions of its rows, ascending."""
    place = np.searchsorted(steps, lengths)
    for index in np.unique(place):
        yield int(steps[index]), np.flatnonzero(place == index)
