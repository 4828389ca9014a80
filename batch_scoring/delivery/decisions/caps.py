"""Ranking and caps of one action: who gets it, among the rows that may.

Rows are ranked by score, the highest first, and by md5 where scores are equal. One walk through the ranks gives the
action to every row for which all caps are still open. A row counts against a cap only if it gets the action: neither a
row of the control group nor one that another cap refuses uses it up.

The walk goes in blocks, so that only rows are hashed that the caps leave a chance, and stops where the cap on the whole
action is reached.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from batch_scoring.delivery.decisions.arms import is_control

BLOCK = 16_384
"""Rows ranked at a time; more if their scores are equal."""


@dataclass(frozen=True)
class Groups:
    """The groups of rows that have equal values in a column, and the cap of each."""

    codes: np.ndarray
    """int32[rows of the day]: number of a row's group."""
    count: int
    """Number of groups."""
    most: int
    """Maximum number of rows of a group that get the action."""


@dataclass(frozen=True)
class Ranked:
    """What the walk has found; rows are positions in the day."""

    rows: np.ndarray
    """Rows that get the action or are its control group, in rank order."""
    control: np.ndarray
    """bool: whether each of them is in the control group."""
    over_group: Sequence[np.ndarray]
    """For each of the groupings, the rows that its caps refuse."""
    over_cap: np.ndarray
    """Rows that the cap on the whole action refuses."""


def rank(
    rows: np.ndarray,
    scores: np.ndarray,
    digests: Callable[[np.ndarray], np.ndarray],
    groupings: Sequence[Groups] = (),
    most: int | None = None,
    share: float | None = None,
) -> Ranked:
    """Rank rows and give them the action, within its caps.

    Args:
        rows: positions of the rows that may get the action.
        scores: score of every row of the day.
        digests: gives the digests of some rows' keys.
        groupings: the columns with caps per value; the first that refuses a row is its reason.
        most: cap on the whole action.
        share: share of the control group, if there is one.
    """
    order = np.argsort(-scores[rows])  # equal scores are put in order a block at a time
    rows = rows[order]
    lowered = -scores[rows]
    walk = _Walk(groupings, sys.maxsize if most is None else most, digests, share)
    start = 0
    while start < len(rows) and not walk.is_full:
        end = int(np.searchsorted(lowered, lowered[min(start + BLOCK, len(rows)) - 1], side="right"))
        walk.go(rows[start:end], lowered[start:end])
        start = end
    walk.refuse(rows[start:])
    return walk.ranked


@dataclass
class _Walk:
    """The state of the walk: what is used up of each cap, and what has become of the rows so far."""

    groupings: Sequence[Groups]
    most: int
    digests: Callable[[np.ndarray], np.ndarray]
    share: float | None
    used: int = 0
    taken: list[np.ndarray] = field(default_factory=list)
    control: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._used_of = [np.zeros(groups.count, np.int64) for groups in self.groupings]
        self._over: list[list[np.ndarray]] = [[] for _ in self.groupings]
        self._over_cap: list[np.ndarray] = []

    @property
    def is_full(self) -> bool:
        return self.used >= self.most

    @property
    def ranked(self) -> Ranked:
        over = [_joined(parts) for parts in self._over]
        return Ranked(_joined(self.taken), _joined(self.control).astype(bool), over, _joined(self._over_cap))

    def go(self, rows: np.ndarray, lowered: np.ndarray) -> None:
        """Walk through a block of rows, ranked but for equal scores, which are all in the same block."""
        left = self._refuse_full(rows)
        rows, control = self._ordered(rows[left], lowered[left])
        refused_by = self._refused_by(rows, control)
        counts = (refused_by < 0) & ~control
        end = int(np.searchsorted(np.cumsum(counts) - counts, self.most - self.used))  # the cap is reached before it
        for number, over in enumerate(self._over):
            over.append(rows[:end][refused_by[:end] == number])
        called = refused_by[:end] < 0
        self.taken.append(rows[:end][called])
        self.control.append(control[:end][called])
        treated = rows[:end][counts[:end]]
        self.used += len(treated)
        for groups, used in zip(self.groupings, self._used_of, strict=True):
            np.add.at(used, groups.codes[treated], 1)
        self.refuse(rows[end:])

    def refuse(self, rows: np.ndarray) -> None:
        """Refuse the rows after the one with which the cap on the whole action was reached."""
        self._over_cap.append(rows[self._refuse_full(rows)])

    def _refuse_full(self, rows: np.ndarray) -> np.ndarray:
        """Refuse the rows whose group is full; return bool[rows]: which are left."""
        left = np.ones(len(rows), bool)
        for groups, used, over in zip(self.groupings, self._used_of, self._over, strict=True):
            full = left & (used[groups.codes[rows]] >= groups.most)
            over.append(rows[full])
            left &= ~full
        return left

    def _ordered(self, rows: np.ndarray, lowered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows, those with equal scores in the order of their digests, and which are control."""
        equal = lowered[1:] == lowered[:-1]
        tied = np.append(equal, False) | np.insert(equal, 0, False) if len(rows) else np.zeros(0, bool)
        hashed = np.ones(len(rows), bool) if self.share is not None else tied
        found = self.digests(rows[hashed])
        ties = found["tie"][tied[hashed]]
        order = np.arange(len(rows))
        order[tied] = order[tied][np.lexsort((ties, lowered[tied]))]
        control = np.zeros(len(rows), bool) if self.share is None else is_control(found, self.share)[order]
        return rows[order], control

    def _refused_by(self, rows: np.ndarray, control: np.ndarray) -> np.ndarray:
        """int8[rows]: number of the grouping whose cap refuses a row, were there no cap on the whole action; or -1."""
        if not self.groupings:
            return np.full(len(rows), -1, np.int8)
        if len(self.groupings) == 1:
            codes = self.groupings[0].codes[rows]
            before = self._used_of[0][codes] + _earlier(codes, ~control)
            return np.where(before < self.groupings[0].most, 0, 1).astype(np.int8) - 1
        return self._refused_one_by_one(rows, control)

    def _refused_one_by_one(self, rows: np.ndarray, control: np.ndarray) -> np.ndarray:
        """The same for several groupings: whether a row counts in one depends on the others."""
        codes = [groups.codes[rows] for groups in self.groupings]
        numbers = [np.unique(part, return_inverse=True) for part in codes]
        free = [
            (groups.most - used[values]).tolist()
            for groups, used, (values, _) in zip(self.groupings, self._used_of, numbers, strict=True)
        ]
        found = np.full(len(rows), -1, np.int8)
        places = zip(*(inverse.tolist() for _, inverse in numbers), strict=True)
        for row, (place, is_held) in enumerate(zip(places, control.tolist(), strict=True)):
            for number, group in enumerate(place):
                if free[number][group] <= 0:
                    found[row] = number
                    break
            else:
                if not is_held:
                    for number, group in enumerate(place):
                        free[number][group] -= 1
        return found


def _earlier(codes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """int64[rows]: how many of the rows before that count have the same code."""
    order = np.argsort(codes, kind="stable")
    sorted_codes, counted = codes[order], counts[order].astype(np.int64)
    before = np.cumsum(counted) - counted
    is_first = np.ones(len(codes), bool)
    is_first[1:] = sorted_codes[1:] != sorted_codes[:-1]
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(codes)), 0))
    found = np.empty(len(codes), np.int64)
    found[order] = before - before[first]
    return found


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
