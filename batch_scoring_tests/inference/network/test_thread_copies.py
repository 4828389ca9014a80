"""Networks that keep what they compute while they compute it: threads do not read each other's."""

import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from batch_scoring.inference.scorer import Scorer
from batch_scoring_tests.networks import WIDTH, Base, loaded, made, own_outputs, table, write

ROWS = table(64 * 24)


class Keeping(Base):
    """It stores a layer's output on itself and reads it a line later, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def body(self, values: torch.Tensor) -> torch.Tensor:
        self.hidden = self.layer(values)
        time.sleep(0.001)  # a switch of threads that is sure to come
        return self.hidden


class Listing(Keeping):
    """It stores in a container."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, torch.Tensor] = {}

    def body(self, values: torch.Tensor) -> torch.Tensor:
        self.kept["layer"] = self.layer(values)
        time.sleep(0.001)
        return self.kept["layer"]


class Scratching(Keeping):
    """It computes in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scratch", torch.zeros(len(ROWS), WIDTH), persistent=False)

    def body(self, values: torch.Tensor) -> torch.Tensor:
        rows = self.get_buffer("scratch")[: len(values)].copy_(self.layer(values))
        time.sleep(0.001)
        return rows.clone()


class Hooked(Keeping):
    """Its hook knows the network that it was made for, and no copy."""

    def __init__(self) -> None:
        super().__init__()

        def keep(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            self.seen = output

        self.layer.register_forward_hook(keep)

    def body(self, values: torch.Tensor) -> torch.Tensor:
        self.layer(values)
        time.sleep(0.001)
        return self.seen


class Locked(Keeping):
    """It cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def scorer(folder: Path, kind: type[Base]) -> Scorer:
    network = made(kind)
    write(folder, network)
    return Scorer(loaded(folder, network), device="cpu", batch_rows=64)


@pytest.mark.parametrize("kind", [Keeping, Listing, Scratching, Hooked, Locked])
def test_threads_do_not_read_what_another_has_stored(tmp_path: Path, kind: type[Base]) -> None:
    engine = scorer(tmp_path, kind)
    batches = [ROWS.slice(start, 64).combine_chunks().to_batches()[0] for start in range(0, len(ROWS), 64)]
    parts = [part.scores for part in engine.score(batches, helpers=3)]
    found = np.stack([pa.Table.from_batches(parts)[f"prob_class_{k}"].to_numpy() for k in (0, 1)], axis=1)
    expected = torch.from_numpy(own_outputs(made(kind), ROWS)).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "many"), [(Base, True), (Keeping, True), (Scratching, True), (Hooked, False), (Locked, False)]
)
def test_only_a_copy_that_gives_the_same_is_used(tmp_path: Path, kind: type[Base], many: bool) -> None:
    assert scorer(tmp_path, kind).runs_side_by_side == many


def test_copies_share_the_weights(tmp_path: Path) -> None:
    copies = scorer(tmp_path, Keeping)._copies
    with copies.borrowed() as one, copies.borrowed() as two:
        assert one is not two
        ours, theirs = dict(one.named_parameters()), dict(two.named_parameters())
        assert len(ours) == 7 and all(theirs[name] is weight for name, weight in ours.items())
    with copies.borrowed() as again:
        assert again in (one, two)
