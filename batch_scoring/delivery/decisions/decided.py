"""The decisions of a day: a code per row, and how many rows have each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.config.rules import reasons
from batch_scoring.delivery.decisions.arms import ARMS, NO_ARM
from batch_scoring.storage import parquet

DICTIONARY = ("action", "reason", "arm", "model_version", "decided_at")
"""Columns that are worth a dictionary: they have few values."""

GroupCounts = dict[str, dict[str, dict[str, int]]]
"""Rows by action, column and value."""


def schema(key: pa.Field) -> pa.Schema:
    """The columns of the table of decisions, without the partition column; `key`: as the predictions have it."""
    return pa.schema(
        [
            key.with_nullable(False),
            pa.field("action", pa.string(), nullable=False),
            pa.field("reason", pa.string(), nullable=False),
            pa.field("arm", pa.string()),
            pa.field("rank", pa.int32()),
            pa.field("score", pa.float64()),
            pa.field("why", pa.string()),
            pa.field("model_version", pa.string(), nullable=False),
            pa.field("decided_at", pa.timestamp("us", "UTC"), nullable=False),
        ]
    )


@dataclass(frozen=True)
class Decided:
    """The decisions of a day, by row."""

    actions: tuple[str, ...]
    """Names of the actions by code; the first is that of a row that gets none."""
    reasons: tuple[str, ...]
    """The reasons by code."""
    action: np.ndarray
    """uint8 or uint16[rows]: code of the row's action."""
    reason: np.ndarray
    """uint8 or uint16[rows]: code of its reason."""
    arm: np.ndarray
    """int8[rows]: code of its arm, or -1."""
    rank: np.ndarray
    """int32[rows]: its rank among the rows that get the action or are its control group, from 1; 0 for other rows."""
    score: np.ndarray
    """float64[rows]: NaN if there is none."""
    group_counts: GroupCounts
    """Rows that get an action, by action, column with a cap per value, and value."""
    with_arms: tuple[str, ...] = ()
    """The actions that have a hold-out."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.action)

    @property
    def has_action(self) -> np.ndarray:
        """bool[rows]: whether a row gets an action."""
        return self.action > 0

    @property
    def action_counts(self) -> dict[str, int]:
        """Rows by action, also by those that no row gets."""
        return dict(zip(self.actions, _counts(self.action, len(self.actions)), strict=True))

    @property
    def reason_counts(self) -> dict[str, int]:
        """Rows by reason, without those that no row has."""
        counts = zip(self.reasons, _counts(self.reason, len(self.reasons)), strict=True)
        return {reason: rows for reason, rows in counts if rows}

    @property
    def arm_counts(self) -> dict[str, dict[str, int]]:
        """Rows by action and arm, for actions with a hold-out."""
        counts = self.reason_counts
        arms = {name: (reasons.taken(name), reasons.holdout(name)) for name in self.with_arms}
        return {
            name: {arm: counts.get(reason, 0) for arm, reason in zip(ARMS, both, strict=True)}
            for name, both in arms.items()
        }

    def batch(
        self,
        start: int,
        keys: pa.Array,
        form: pa.Schema,
        version: str,
        at: pa.Scalar,
        why: pa.Array | None = None,
    ) -> pa.RecordBatch:
        """Return some rows as the table holds them; text with few values is dictionary-encoded.

        Args:
            start: position of the first row.
            keys: the keys of these rows.
            form: the columns, as `schema` gives them.
            version: version of the model.
            at: when the day was decided, as the schema's type.
            why: what lifted each row's score; None for no explanation.
        """
        rows = slice(start, start + len(keys))
        arm, rank = self.arm[rows], self.rank[rows]
        columns = [
            keys.cast(form.field(0).type),
            _coded(self.action[rows], self.actions),
            _coded(self.reason[rows], self.reasons),
            _coded(arm, ARMS, arm == NO_ARM),
            pa.array(rank, mask=rank == 0),
            pa.array(self.score[rows], from_pandas=True),
            pa.nulls(len(keys), pa.string()) if why is None else why,
            parquet.constant(version, len(keys)),
            parquet.constant(at, len(keys)),
        ]
        return pa.RecordBatch.from_arrays(columns, names=form.names)


def keys_with(action: str, decisions: pa.RecordBatch, key: str) -> pa.Array:
    """Return the keys of decisions that had an action or were in its control group: what `not_within_days` counts."""
    had = pc.equal(decisions.column("action"), action)
    held = pc.equal(decisions.column("reason"), reasons.holdout(action))
    return decisions.column(key).filter(pc.or_(had, held))


def _counts(codes: np.ndarray, count: int) -> list[int]:
    counts: list[int] = np.bincount(codes, minlength=count).tolist()
    return counts


def _coded(codes: np.ndarray, names: Sequence[str], mask: np.ndarray | None = None) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=mask), pa.array(names, pa.string()))
