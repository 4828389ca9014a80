"""Decisions by a function of the pipeline's own, which promises to look at nothing but the day's rows.

The function gets all rows of a day as one table, and returns a table with an action and a reason for each, in order:

    def decide(rows: pa.Table, day: date) -> pa.Table

It is called twice, the second time with the rows in reverse order. If any key then gets another decision, the function
depends on the order of the rows, on the clock or on chance, and the day stops. The checks of decisions test its reasons
and caps, as they do without a function.
"""

import traceback
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.config.delivery_spec import NO_ACTION, Decisions
from batch_scoring.config.rules import reasons
from batch_scoring.delivery.decisions import groups
from batch_scoring.delivery.decisions.arms import NO_ARM
from batch_scoring.delivery.decisions.decided import Decided, GroupCounts
from batch_scoring.delivery.decisions.reading import as_scores, check_columns
from batch_scoring.errors import DecisionError

Function: TypeAlias = Callable[[pa.Table, date], Any]

UNKNOWN_REASONS = 100
"""Maximum number of different reasons that the spec does not name: a check reports so many, more are no vocabulary."""

_NOT_PURE = (
    "but only when the rows come in reverse order. It must not depend on their order, on the clock or on chance: sort "
    "before you count, and break ties by the key"
)


def decide_by_function(rows: pa.Table, day: date, function: Function, decisions: Decisions, key: str) -> Decided:
    """Decide about the rows of a day.

    Args:
        rows: all rows of the day, with the key and all columns.
        day: the day.
        function: the function that the spec names.
        decisions: the section of the spec.
        key: column that identifies a row.

    Raises:
        DecisionError: the function failed, did not return what it should, or is not pure.
    """
    check_columns(decisions, key, rows.schema)
    call = _Call(function, day, decisions, key)
    found = call(rows)
    backwards = pa.array(np.arange(len(rows))[::-1])
    call.check_same(rows, found, call(rows.take(backwards)).take(backwards))
    return _decided(rows, found, decisions)


class _Call:
    """A call of the function, whose result is checked."""

    def __init__(self, function: Function, day: date, decisions: Decisions, key: str) -> None:
        self._function, self._day, self._key = function, day, key
        self._name, self._actions = decisions.function, (NO_ACTION, *decisions.actions)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return the action, the reason and the rank of each row; the rank is null if the function gives none."""
        try:
            found = self._function(rows, self._day)
        except (Exception, SystemExit) as error:  # whatever a user's function may raise
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise self._error(f"raised {said}{_place_of(error)}") from error
        self._check_form(rows, found)
        decided = self._typed(found)
        is_known = pc.is_in(decided["action"], value_set=pa.array(self._actions))
        self._check_each(rows, is_known, decided["action"], "action", f"expected one of {', '.join(self._actions)}")
        self._check_each(rows, decided["reason"].is_valid(), decided["reason"], "reason", "expected a text")
        is_rank = pc.greater(decided["rank"], 0).fill_null(True)
        self._check_each(rows, is_rank, decided["rank"], "rank", "expected 1 for the first, or null")
        return decided

    def check_same(self, rows: pa.Table, found: pa.Table, again: pa.Table) -> None:
        """Check that the second call has given each key what the first one gave it."""
        for name in found.column_names:
            is_same = pc.equal(found[name], again[name]).fill_null(False)
            both_null = pc.and_(found[name].is_null(), again[name].is_null())
            self._check_each(rows, pc.or_(is_same, both_null), again[name], name, _NOT_PURE)

    def _check_form(self, rows: pa.Table, found: object) -> None:
        """Check that it is a table with the right columns, and a row for each of the rows."""
        if not isinstance(found, pa.Table):
            raise self._error(f"returned {type(found).__name__}; expected a pyarrow.Table with action and reason")
        names = found.column_names
        if missing := [name for name in ("action", "reason") if name not in names]:
            raise self._error(f"returned no column {', '.join(missing)}; found {', '.join(names) or 'none'}")
        if strange := [name for name in names if name not in ("action", "reason", "rank", self._key)]:
            raise self._error(f"returned the column {', '.join(strange)}; expected action, reason and perhaps rank")
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise self._error(f"returned the column {', '.join(twice)} more than once; expected every column once")
        if len(found) != len(rows):
            raise self._error(f"returned {len(found)} rows for {len(rows)}; expected one for each, in their order")
        if self._key in names and not _as(rows[self._key].type, found[self._key]).equals(rows[self._key]):
            raise self._error(f"returned other keys than it got; expected the rows in their order, {self._key} alike")

    def _typed(self, found: pa.Table) -> pa.Table:
        """Return the columns with the types of the table of decisions."""
        ranks = found["rank"] if "rank" in found.column_names else pa.nulls(len(found))
        try:
            texts = {name: found[name].cast(pa.string()) for name in ("action", "reason")}
            return pa.table(texts | {"rank": ranks.cast(pa.int32())})
        except pa.ArrowException as error:
            raise self._error(f"returned {found.schema}; expected text, and whole numbers as rank: {error}") from error

    def _check_each(
        self, rows: pa.Table, is_right: pa.ChunkedArray, found: pa.ChunkedArray, what: str, expected: str
    ) -> None:
        """Check every row.

        Raises:
            DecisionError: some are wrong; the message names the first.
        """
        wrong = np.flatnonzero(~is_right.to_numpy())
        if len(wrong):
            place = int(wrong[0])
            others = {1: "", 2: " and 1 other row"}.get(len(wrong), f" and {len(wrong) - 1} other rows")
            key, value = rows[self._key][place].as_py(), found[place].as_py()
            raise self._error(f"gives the {what} {value!r} for {self._key} {key!r}{others}; {expected}")

    def _error(self, what: str) -> DecisionError:
        return DecisionError(f"decisions.function: {self._name} {what}")


def _as(kind: pa.DataType, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column with another type, which pandas may have changed; as it is if its values do not fit."""
    try:
        return column.cast(kind)
    except pa.ArrowException:
        return column


def _decided(rows: pa.Table, found: pa.Table, decisions: Decisions) -> Decided:
    actions = (NO_ACTION, *decisions.actions)
    known = reasons.vocabulary(decisions)
    unknown = sorted(set(found["reason"].unique().to_pylist()) - set(known))
    if len(unknown) > UNKNOWN_REASONS:
        raise DecisionError(
            f"decisions.function: {decisions.function} gives {len(unknown)} reasons that decisions.reasons does not "
            f"name, {unknown[0]!r} for one; expected few, without numbers or names in them"
        )
    action = _codes(found["action"], actions)
    return Decided(
        actions=actions,
        reasons=(*known, *unknown),
        action=action,
        reason=_codes(found["reason"], (*known, *unknown)),
        arm=np.full(len(rows), NO_ARM, np.int8),
        rank=found["rank"].fill_null(0).to_numpy(),
        score=as_scores(rows[decisions.score]),
        group_counts=_group_counts(rows, action, decisions),
    )


def _group_counts(rows: pa.Table, action: np.ndarray, decisions: Decisions) -> GroupCounts:
    found: GroupCounts = {}
    for code, (name, limits) in enumerate(decisions.actions.items(), start=1):
        found[name] = {
            column: groups.counts(np.flatnonzero(action == code), *groups.encoded(rows[column]))
            for column in limits.most_per
        }
    return found


def _place_of(error: BaseException) -> str:
    """The last line of the function's own file that an error came through; empty if it came through none."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return f" ({Path(own[-1].filename).name} line {own[-1].lineno})" if own else ""


def _codes(column: pa.ChunkedArray, names: tuple[str, ...]) -> np.ndarray:
    codes: np.ndarray = pc.index_in(column, value_set=pa.array(names, pa.string())).to_numpy()
    return codes.astype(np.min_scalar_type(len(names)))
