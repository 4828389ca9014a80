"""Rows, tensors, labels and batches as training code wants them."""

import pyarrow as pa
import pytest
import torch

from batch_scoring.errors import UnsoundError
from batch_scoring.training import Training
from batch_scoring_tests.tiny import TinyProject
from batch_scoring_tests.trained import labelled, net


def test_labels_are_positions_of_classes_or_numbers(tiny: TinyProject) -> None:
    more = {"flag": [True, False] * 30, "score": [1.5] * 60, "grade": [3, 4] * 30, "gap": [None, 1] * 30}
    rows = tiny.rows(60)
    for name, values in more.items():
        rows = rows.append_column(name, pa.array(values))
    data = Training(tiny.pipeline, rows)
    assert data.labels("flag", [False, True]).tolist() == [1, 0] * 30
    assert data.labels("grade", [4, 3]).tolist() == data.labels("grade", ["4", "3"]).tolist() == [1, 0] * 30
    assert data.labels("score").dtype == torch.float32 and data.labels("flag").tolist() == [1.0, 0.0] * 30
    for column, classes, message in (
        ("nothing", None, "no column nothing; it has id, x, y, n, c, flag"),
        ("gap", None, "30 of 60 rows have no gap; leave them out of the sample"),
        ("grade", [3], r"grade has '4'; the classes are 3"),
        ("id", None, "id is string; expected numbers"),
    ):
        with pytest.raises(UnsoundError, match=message):
            data.labels(column, classes)


def test_an_epoch_has_every_row_once_in_another_order_for_another_seed(tiny: TinyProject) -> None:
    data = Training(tiny.pipeline, labelled())
    epochs = [[rows for _, rows in data.batches(256, seed=seed)] for seed in (0, 0, 1)]
    assert sorted(torch.cat(epochs[0]).tolist()) == list(range(len(data)))
    assert torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[2]))
    assert {len(rows) for rows in epochs[0]} == {256, len(data) % 256}
    for tensors, rows in data.batches(256):
        assert torch.equal(tensors["categorical"], data.tensors["categorical"][rows])


def test_outputs_are_those_of_evaluation_mode_and_the_network_stays_in_training(tiny: TinyProject) -> None:
    data = Training(tiny.pipeline, labelled())
    network = net(data)
    network.layers.insert(1, torch.nn.Dropout(0.5))  # type: ignore[union-attr, operator]
    assert network.training
    found = data.outputs(network)
    assert network.training and torch.equal(found, data.outputs(network))
    torch.testing.assert_close(found, network.eval()(**data.tensors).detach(), rtol=1e-5, atol=1e-6)
