"""Check that each row's outputs depend on that row alone.

A score must not depend on the batch that its row happens to be in. The golden rows, and the same with gaps (a missing
number in each, unknown categories in every other one), pass through the network again, reversed, in smaller and larger
batches, among copies of another row, and some of them alone among copies. Batch statistics, a mean over rows, attention
over rows, a state that is carried on and active dropout show in one of these. It is done whenever a bundle is written
or loaded: 14 small forward passes on the CPU, 2.4 ms for the network of customer_churn and 4.8 ms
for that of flight_delay.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance import agreement, eager
from batch_scoring.inference.acceptance.eager import Inputs
from batch_scoring.inference.inputs.encoded import GRID
from batch_scoring.inference.manifest import LoadedModel

if TYPE_CHECKING:
    import torch

ROWS_ALONE = 8
"""Rows that are tested alone among copies of another row; each takes a forward pass."""


@dataclass(frozen=True)
class Trial:
    """The rows in another order or batch."""

    what: str
    order: np.ndarray
    """Their positions among all rows."""
    is_exact: bool = False
    """Whether every bit must be the same."""


def check_rows_are_independent(model: LoadedModel, golden: pa.Table) -> None:
    """Check the network on its golden rows in several orders and batches.

    Every batch is a multiple of the scorer's grid, in which sound networks gave the same bits in all trials; the
    task's own tolerance is accepted, for builds of torch that round differently there. The same batch gives the same
    bits in every build.

    Raises:
        UnsoundError: a row's outputs differ beside other rows, or in the same batch a second time, or the network
            changes what it has learned.
    """
    import torch

    network, manifest = model.network, model.manifest
    plain = eager.inputs(model, golden)
    rows = plain.followed_by(_with_gaps(plain))
    try:
        expected = eager.forward(network, rows, manifest.outputs)
    except UnsoundError:  # it rejects gaps: such rows are quarantined
        rows = plain
        expected = eager.forward(network, rows, manifest.outputs)
    tolerance = agreement.usual(manifest.task.tolerance, expected)
    learned = {name: values.clone() for name, values in _learned(network)}
    for trial in _trials(len(rows)):
        found = eager.forward(network, rows.take(trial.order), manifest.outputs)
        seen = agreement.worst(found, expected[trial.order], tolerance)
        if not seen.is_accepted or (trial.is_exact and seen.size):
            raise UnsoundError(
                f"the network's output for a row depends on more than that row: golden rows {trial.what} give "
                f"{seen.found:.9g} where they gave {seen.expected:.9g}. {_remedy(trial)}"
            )
    for name, values in _learned(network):  # the effect may not show in a few batches, but a day has many
        if not torch.equal(values, learned[name]):
            raise UnsoundError(
                f"the network's output for a row depends on the rows before it: forward() changes {name}, also after "
                "eval(). Leave what the network has learned as the training left it"
            )


def _learned(network: "torch.nn.Module") -> "Iterator[tuple[str, torch.Tensor]]":
    """Weights and statistics; a whole number is a counter, which shows in the outputs if it is used."""
    for name, values in network.state_dict().items():
        if values.is_floating_point():
            yield name, values.nan_to_num()


def _trials(rows: int) -> Iterator[Trial]:
    every = np.arange(rows)
    yield Trial(_AGAIN, every, is_exact=True)
    yield Trial("in the reverse order", every[::-1].copy())
    for start in range(0, rows, GRID):
        yield Trial(f"in a batch of {GRID} instead of {rows}", every[start : start + GRID])
    yield Trial("each among copies of another", np.stack([every, np.full(rows, rows - 1)], axis=1).ravel())
    for row in np.linspace(0, rows - 1, ROWS_ALONE, dtype=int):
        alone = np.full(GRID, (row + rows // 3) % rows)
        alone[row % GRID] = row
        yield Trial("alone among copies of another", alone)


_AGAIN = "a second time in the same batch"


def _remedy(trial: Trial) -> str:
    if trial.what == _AGAIN:
        return (
            "Something is random or keeps a state after eval(): a functional dropout takes training=self.training, and "
            "forward() stores nothing"
        )
    return (
        "A score must not change with the batch: keep statistics of the training data in buffers (BatchNorm with "
        "track_running_stats, a mean in register_buffer), and neither mean nor attend over dimension 0"
    )


def _with_gaps(rows: Inputs) -> Inputs:
    """The rows with a missing number in each, and unknown categories and no text in every other one."""
    holes, unknown = rows.matrices["numeric"].copy(), rows.matrices["categorical"].copy()
    if holes.shape[1]:
        holes[np.arange(len(holes)), np.arange(len(holes)) % holes.shape[1]] = np.nan
    unknown[1::2] = 0
    gapped = rows.replace(numeric=holes, categorical=unknown)
    if rows.tokens is None or rows.text is None:
        return gapped
    nothing = (rows.text.unknown,)
    return gapped.replace_tokens(nothing if row % 2 else ids for row, ids in enumerate(rows.tokens))
