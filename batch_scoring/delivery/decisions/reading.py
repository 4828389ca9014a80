"""What decisions keep of a day's rows: everything that can be said of a row without looking at others.

Each batch is compared with the rules of eligibility and with every action's rule and threshold. A row keeps its key,
its score, its groups, and a code per action: 15 to 20 bytes besides the key.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from batch_scoring.config.delivery_spec import Action, Decisions
from batch_scoring.config.rules import reasons
from batch_scoring.config.rules.expressions import Rule
from batch_scoring.delivery.decisions.arms import as_text
from batch_scoring.delivery.decisions.groups import GroupColumn
from batch_scoring.errors import DecisionError


class Codes:
    """The reasons as small integers."""

    def __init__(self, decisions: Decisions) -> None:
        self.names = reasons.vocabulary(decisions)
        self.open = len(self.names)
        """No reason yet: nothing has refused or taken the row."""
        self.dtype = np.min_scalar_type(self.open)
        self._by_name = {name: code for code, name in enumerate(self.names)}

    def __getitem__(self, reason: str) -> int:
        return self._by_name[reason]

    def all_open(self, rows: int) -> np.ndarray:
        """Return a code per row: no reason yet."""
        return np.full(rows, self.open, self.dtype)


@dataclass(frozen=True)
class DayColumns:
    """What is kept of a day's rows."""

    keys: pa.Array
    """large_string[rows]."""
    score: np.ndarray
    """float64[rows]: NaN if there is none."""
    reason: np.ndarray
    """Code of the rule of eligibility that refuses a row, or open."""
    refused: dict[str, np.ndarray]
    """By action: code of the reason for which its rule or threshold refuses a row, or open."""
    groups: dict[str, tuple[np.ndarray, pa.Array]]
    """By column with caps: number of each row's group, and the values by number."""


def columns(decisions: Decisions) -> tuple[str, ...]:
    """The columns that the decisions read, besides the key; a function gets all columns of the day instead.

    Raises:
        RuleError: a rule cannot be read.
    """
    names = [name for rule in _rules(decisions).values() for name in sorted(rule.names)]
    return tuple(dict.fromkeys([decisions.score, *names, *capped_columns(decisions)]))


def capped_columns(decisions: Decisions) -> tuple[str, ...]:
    """The columns whose values have caps."""
    return tuple(dict.fromkeys(column for action in decisions.actions.values() for column in action.most_per))


def read(
    batches: Iterable[pa.RecordBatch], decisions: Decisions, codes: Codes, key: str, schema: pa.Schema
) -> DayColumns:
    """Read the rows of a day; the arguments are those of `decide`.

    Raises:
        RuleError: a rule cannot be read, or does not fit the columns.
        DecisionError: a column is missing, or the score is not a number.
    """
    reader = _Reader(decisions, codes, key, schema)
    for batch in batches:
        reader.add(batch)
    return reader.day()


class _Reader:
    """Reads a day a batch at a time."""

    def __init__(self, decisions: Decisions, codes: Codes, key: str, schema: pa.Schema) -> None:
        check_columns(decisions, key, schema)
        self._decisions, self._codes, self._key = decisions, codes, key
        self._rules = {where: rule.bind(schema) for where, rule in _rules(decisions).items()}
        self._keys: list[pa.Array] = [pa.array([], pa.large_string())]
        self._scores = [np.zeros(0)]
        self._reasons = [codes.all_open(0)]
        self._refused = {name: [codes.all_open(0)] for name in decisions.actions}
        self._groups = {name: GroupColumn() for name in capped_columns(decisions)}

    def add(self, batch: pa.RecordBatch) -> None:
        """Keep what is needed of some rows."""
        score = as_scores(batch.column(self._decisions.score))
        self._scores.append(score)
        self._keys.append(as_text(batch.column(self._key)))
        self._reasons.append(self._ineligible(batch))
        for name, action in self._decisions.actions.items():
            self._refused[name].append(self._not_taken(batch, score, name, action))
        for name, groups in self._groups.items():
            groups.add(batch.column(name))

    def day(self) -> DayColumns:
        """Return what was kept of all rows, and keep nothing."""
        return DayColumns(
            _joined(self._keys, pa.concat_arrays),
            _joined(self._scores, np.concatenate),
            _joined(self._reasons, np.concatenate),
            {name: _joined(parts, np.concatenate) for name, parts in self._refused.items()},
            {name: groups.encoded() for name, groups in self._groups.items()},
        )

    def _ineligible(self, batch: pa.RecordBatch) -> np.ndarray:
        found = self._codes.all_open(len(batch))
        for name in self._decisions.eligible:
            refused, unknown = reasons.ineligible(name), reasons.ineligible(name, unknown=True)
            self._refuse(found, self._rules[_place_of_rule(name)](batch), refused, unknown)
        return found

    def _not_taken(self, batch: pa.RecordBatch, score: np.ndarray, name: str, action: Action) -> np.ndarray:
        found = self._codes.all_open(len(batch))
        if action.where:
            refused, unknown = reasons.not_met(name), reasons.not_met(name, unknown=True)
            self._refuse(found, self._rules[_place_of_where(name)](batch), refused, unknown)
        enough = ~np.isnan(score) if action.at_least is None else score >= action.at_least
        found[~enough & (found == self._codes.open)] = self._codes[reasons.below(name)]
        return found

    def _refuse(self, found: np.ndarray, satisfied: pa.BooleanArray, refused: str, unknown: str) -> None:
        """Give a reason to the rows that have none and do not satisfy a rule."""
        is_open = found == self._codes.open
        found[is_open & ~_bools(satisfied.fill_null(True))] = self._codes[refused]
        if satisfied.null_count:
            found[is_open & _bools(satisfied.is_null())] = self._codes[unknown]


def check_columns(decisions: Decisions, key: str, schema: pa.Schema) -> None:
    """Check that there is a key, a score and every column with caps.

    Raises:
        DecisionError: one is missing, or the score is not a number.
    """
    wanted = {key: "input.key", decisions.score: "decisions.score"} | {
        column: f"decisions.actions.{name}.most_per"
        for name, action in decisions.actions.items()
        for column in action.most_per
    }
    for column, place in wanted.items():
        if column not in schema.names:
            raise DecisionError(f"{place}: the day has no column {column}; expected one of {', '.join(schema.names)}")
    kind = schema.field(decisions.score).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise DecisionError(f"decisions.score: the column {decisions.score} is {kind}; expected numbers")


def as_scores(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """float64[rows]: NaN where there is no score."""
    found: np.ndarray = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return found


def _rules(decisions: Decisions) -> dict[str, Rule]:
    """The rules by their place in the spec."""
    texts = {_place_of_rule(name): text for name, text in decisions.eligible.items()}
    texts |= {_place_of_where(name): action.where for name, action in decisions.actions.items() if action.where}
    return {place: Rule.parse(text, place) for place, text in texts.items()}


def _place_of_rule(name: str) -> str:
    return f"decisions.eligible.{name}"


def _place_of_where(action: str) -> str:
    return f"decisions.actions.{action}.where"


def _bools(column: pa.BooleanArray) -> np.ndarray:
    found: np.ndarray = column.to_numpy(zero_copy_only=False)
    return found


def _joined(parts: list[Any], join: Callable[[list[Any]], Any]) -> Any:  # noqa: ANN401  (arrays of numpy or Arrow)
    """Return the parts as one array, and drop them: the next array needs the memory."""
    whole = join(parts)
    parts.clear()
    return whole
