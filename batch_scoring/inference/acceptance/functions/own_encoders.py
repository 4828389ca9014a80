"""Check that what the pipeline's own encoder gives for a row depends on that row alone."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from batch_scoring.errors import ScoringError, UnsoundError
from batch_scoring.inference.acceptance.functions.transforms import DAY
from batch_scoring.inference.acceptance.functions.two_threads import interrupted
from batch_scoring.inference.acceptance.row_independence import Trial
from batch_scoring.inference.inputs.fitted import Fitted
from batch_scoring.inference.inputs.own_encoder import NAME, Function, OwnEncoder
from batch_scoring.inference.inputs.transform import whole
from batch_scoring.inference.manifest import LoadedModel


def learn(function: Function, state: Fitted, golden: pa.Table) -> OwnEncoder:
    """Learn which arrays a function gives for the golden rows.

    Raises:
        UnsoundError: it raises for one of them, or returns something else than arrays with a row for each row.
    """
    try:
        raw = golden.drop_columns([name for name in DAY if name in golden.column_names])
        return OwnEncoder.learn(function, state, whole(raw))
    except ScoringError as error:
        raise UnsoundError(f"golden: {error}") from error


def check_rows_are_independent(model: LoadedModel, golden: pa.Table) -> None:
    """Encode the golden rows in several orders and batches, and compare bit by bit.

    Raises:
        UnsoundError: what the function gives for a row depends on other rows, or differs a second time.
    """
    if not isinstance(model.encode, OwnEncoder):
        return
    rows = model.encode.input(whole(golden))
    expected = _arrays(model.encode, rows)
    for trial in _trials(rows.num_rows):
        found = _arrays(model.encode, rows.take(pa.array(trial.order)))
        for name, values in expected.items():
            same = values[trial.order]
            if found[name].shape != same.shape or found[name].dtype != same.dtype:
                raise UnsoundError(
                    f"{NAME} gives {name} another shape or type for golden rows {trial.what}: {found[name].dtype}"
                    f"{list(found[name].shape)}, expected {same.dtype}{list(same.shape)}"
                )
            if not np.array_equal(found[name], same, equal_nan=same.dtype.kind == "f"):
                differs = np.flatnonzero((found[name] != same).reshape(len(same), -1).any(axis=1))
                raise UnsoundError(
                    f"{NAME} gives other values of {name} for golden rows {trial.what}: what it gives for a row (here "
                    f"golden row {int(trial.order[differs[0]])}) depends on the rows beside it, or on chance. Use what "
                    "fit() has learned in place of statistics of the batch"
                )


def check_two_threads(model: LoadedModel, golden: pa.Table) -> None:
    """Encode the golden rows while another thread encodes others.

    Raises:
        UnsoundError: the function gives other values then.
    """
    encoder = model.encode
    if not isinstance(encoder, OwnEncoder):
        return
    rows = encoder.input(whole(golden))
    others = rows.take(pa.array(np.arange(rows.num_rows)[::-1].copy()))
    expected = _arrays(encoder, rows)
    found = interrupted(encoder.function, lambda: _arrays(encoder, rows), lambda: _arrays(encoder, others))
    for name, values in expected.items():
        if not np.array_equal(found[name], values, equal_nan=values.dtype.kind == "f"):
            raise UnsoundError(
                f"{NAME} gives other values of {name} while another thread calls it: it keeps values in its module, or "
                "in what fit has learned, while it computes others. Make arrays anew in each call"
            )


def _arrays(encoder: OwnEncoder, rows: pa.RecordBatch) -> dict[str, np.ndarray]:
    found = encoder.blank(rows.num_rows)
    try:
        failed = encoder.encode(rows, found)
    except ScoringError as error:
        raise UnsoundError(f"golden: {error}") from error
    if failed:
        raise UnsoundError(f"golden: {NAME} raises for row {failed[0].position}: {failed[0].detail}")
    return found


def _trials(rows: int) -> Iterator[Trial]:
    every = np.arange(rows)
    yield Trial("a second time", every)
    yield Trial("in the reverse order", every[::-1].copy())
    yield Trial("in a batch of half of them", every[: max(1, rows // 2)])
    for row in np.linspace(0, rows - 1, 8, dtype=int):
        yield Trial("alone", np.array([row]))
    yield Trial("twice each", np.repeat(every, 2))
