"""The column `why` of a day's decisions: which features lift the score of a row that gets an action."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from batch_scoring.config import compute
from batch_scoring.config.delivery_spec import Decisions
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.delivery.day_rows import DayRows
from batch_scoring.delivery.decisions.decided import Decided
from batch_scoring.inference.bundle import load_bundle, read_bundle
from batch_scoring.inference.network.code import ModelCode
from batch_scoring.inference.occlusion import Occlusion
from batch_scoring.inference.scorer import Scorer
from batch_scoring.storage.state import State

MOST = 10_000
"""Rows of each action that are explained: nobody reads more, and each feature scores them again."""


@dataclass(frozen=True)
class Explanations:
    """Reasons of some rows of a day."""

    positions: np.ndarray
    """int64: of the explained rows, ascending."""
    texts: pa.Array
    """string: of each."""

    def of(self, start: int, count: int) -> pa.Array | None:
        """Return the reasons of `count` rows from `start` on, null for rows without one; None if no row has one."""
        first, last = np.searchsorted(self.positions, (start, start + count))
        if first == last:
            return None
        places = np.full(count, -1)
        places[self.positions[first:last] - start] = np.arange(first, last)
        return self.texts.take(pa.array(places, mask=places < 0))


def explain(
    pipeline: Pipeline, decisions: Decisions, rows: DayRows, decided: Decided, model_sha256: str
) -> Explanations:
    """Explain the rows that get an action, with the model that scored them.

    Raises:
        BundleError: the model's copy in the state is damaged, or this machine computes other scores.
        ScoringError: the model has no such score, or the device is not there.
    """
    positions = _explained(decided)
    if not len(positions):
        return Explanations(positions, pa.nulls(0, pa.string()))
    folder, device = State(pipeline.output).models.subfolder(model_sha256), compute.device(pipeline)
    model = load_bundle(folder, ModelCode.of(pipeline), device)
    scorer = Scorer(model, device=device, batch_rows=pipeline.spec.scoring.batch_rows)
    occlusion = Occlusion(scorer, read_bundle(folder).reference, decisions.score)
    table = _take(rows, positions, model.columns)
    return Explanations(positions, occlusion.reasons(table, decisions.explain))


def _explained(decided: Decided) -> np.ndarray:
    """Positions of the rows to explain: of each action the first by rank; rows without a rank follow, by score."""
    rows = np.flatnonzero(decided.has_action)
    rank = decided.rank[rows].astype(np.int64)
    rank[rank == 0] = np.iinfo(np.int64).max
    in_order = rows[np.lexsort((-decided.score[rows], rank, decided.action[rows]))]
    actions = decided.action[in_order]
    place = np.arange(len(actions)) - np.searchsorted(actions, actions)
    return np.sort(in_order[place < MOST])


def _take(rows: DayRows, positions: np.ndarray, columns: tuple[str, ...]) -> pa.Table:
    """Some rows of a day."""
    start, found = 0, []
    for batch in rows.read(columns):
        first, last = np.searchsorted(positions, (start, start + batch.num_rows))
        if last > first:
            found.append(batch.take(pa.array(positions[first:last] - start)))
        start += batch.num_rows
    return pa.Table.from_batches(found)
