"""The decisions of a day: at most one action for each row, with the reason.

`reading.py` says of each row what can be said without looking at others. Then the actions take their rows, in the order
of the spec: `caps.py` ranks those that may get the action and that no earlier action has taken. The result does not
depend on the order of the rows, and a missing value never satisfies a rule or a threshold.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.config.delivery_spec import NO_ACTION, Action, Decisions
from batch_scoring.config.rules import reasons
from batch_scoring.delivery.decisions import arms, caps, groups
from batch_scoring.delivery.decisions.decided import Decided, GroupCounts
from batch_scoring.delivery.decisions.reading import Codes, DayColumns, read

_NOTHING: Mapping[str, pa.Array] = MappingProxyType({})


def decide(
    batches: Iterable[pa.RecordBatch],
    decisions: Decisions,
    key: str,
    schema: pa.Schema,
    recent: Mapping[str, pa.Array] = _NOTHING,
    salt: str = "",
) -> Decided:
    """Decide about the rows of a day.

    Args:
        batches: the rows, with the key and the `columns` that the decisions read; read once.
        decisions: the section of the spec, without a function.
        key: column that identifies a row.
        schema: of the batches.
        recent: for actions with `not_within_days`, the keys that had them, as `keys_with` finds them.
        salt: text that is hashed with the keys for actions without a hold-out: the pipeline's name.

    Raises:
        RuleError: a rule cannot be read, or does not fit the columns.
        DecisionError: a column is missing, or the score is not a number.
    """
    codes = Codes(decisions)
    walk = _Walk(codes, read(batches, decisions, codes, key, schema), salt)
    for number, (name, action) in enumerate(decisions.actions.items(), start=1):
        walk.take(number, name, action, recent.get(name))
    return walk.decided(decisions)


class _Walk:
    """The walk through the actions, each of which takes its rows."""

    def __init__(self, codes: Codes, day: DayColumns, salt: str) -> None:
        self._codes, self._day, self._salt = codes, day, salt
        rows = len(day.score)
        self._action = np.zeros(rows, np.min_scalar_type(len(day.refused)))
        self._arm = np.full(rows, arms.NO_ARM, np.int8)
        self._rank = np.zeros(rows, np.int32)
        self._refused = codes.all_open(rows)
        """Of each row, the first reason for which an action refused it, other than a score below the threshold."""
        self._group_counts: GroupCounts = {}

    def take(self, number: int, name: str, action: Action, recent: pa.Array | None) -> None:
        """Give an action to its rows. `number`: its code."""
        found = self._day.refused.pop(name)
        rows = np.flatnonzero((found == self._codes.open) & (self._day.reason == self._codes.open)).astype(np.int32)
        if recent is not None and action.not_within_days:
            had = self._had(rows, recent)
            found[rows[had]] = self._codes[reasons.recent(name)]
            rows = rows[~had]
        self._rank_rows(rows, found, number, name, action)
        first = (self._refused == self._codes.open) & (found != self._codes[reasons.below(name)])
        self._refused[first] = found[first]

    def decided(self, decisions: Decisions) -> Decided:
        """Return the decisions, after the last action."""
        actions = decisions.actions
        reason, is_open = self._day.reason, self._codes.open
        self._refused[self._refused == is_open] = self._codes[reasons.below(list(actions)[-1])]
        left = reason == is_open
        reason[left] = self._refused[left]
        return Decided(
            actions=(NO_ACTION, *actions),
            reasons=self._codes.names,
            action=self._action,
            reason=reason,
            arm=self._arm,
            rank=self._rank,
            score=self._day.score,
            group_counts=self._group_counts,
            with_arms=tuple(name for name, action in actions.items() if action.holdout),
        )

    def _had(self, rows: np.ndarray, recent: pa.Array) -> np.ndarray:
        """bool[rows]: whether the key of a row is among the recent ones."""
        found: np.ndarray = pc.is_in(self._keys(rows), value_set=arms.as_text(recent)).to_numpy(zero_copy_only=False)
        return found

    def _keys(self, rows: np.ndarray) -> pa.Array:
        return self._day.keys.take(pa.array(rows))

    def _rank_rows(self, rows: np.ndarray, found: np.ndarray, number: int, name: str, action: Action) -> None:
        """Rank the rows that may get an action; give it to those that the caps let through, a reason to the others."""
        holdout = action.holdout
        salt = holdout.salt if holdout else self._salt
        ranked = caps.rank(
            rows,
            self._day.score,
            lambda some: arms.digests(self._keys(some), salt),
            [caps.Groups(*self._groups_of(column), most) for column, most in action.most_per.items()],
            action.most,
            holdout.share if holdout else None,
        )
        for column, over in zip(action.most_per, ranked.over_group, strict=True):
            found[over] = self._codes[reasons.over_cap(name, column)]
        if action.most is not None:
            found[ranked.over_cap] = self._codes[reasons.over_cap(name)]
        treated, control = ranked.rows[~ranked.control], ranked.rows[ranked.control]
        self._rank[ranked.rows] = np.arange(1, len(ranked.rows) + 1)
        self._action[treated] = number
        self._day.reason[treated] = self._codes[reasons.taken(name)]
        if holdout:
            self._arm[treated], self._arm[control] = arms.TREATED, arms.CONTROL
            self._day.reason[control] = self._codes[reasons.holdout(name)]
        self._group_counts[name] = {
            column: groups.counts(treated, *self._day.groups[column]) for column in action.most_per
        }

    def _groups_of(self, column: str) -> tuple[np.ndarray, int]:
        codes, values = self._day.groups[column]
        return codes, len(values)
