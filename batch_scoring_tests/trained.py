"""Labelled rows of the tiny pipeline, and a network that has learned a little from them."""

import numpy as np
import pyarrow as pa
import torch

from batch_scoring.training import Training
from batch_scoring_tests.tiny import reference_rows

CLASSES = ["no", "yes"]


def labelled(days: int = 32, count: int = 60) -> pa.Table:
    """Rows of some days with the label `left`."""
    rows = reference_rows(days=days, count=count)
    return rows.append_column("left", pa.array(np.where(rows["x"].to_numpy() > 0, "yes", "no")))


def net(data: Training, seed: int = 0) -> torch.nn.Module:
    """A network of the tiny pipeline that has learned a little."""
    torch.manual_seed(seed)
    words = max(map(len, data.vocabularies.values()))
    network = data.network(numeric=data.tensors["numeric"].shape[1], words=words, outputs=2)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    labels = data.labels("left", CLASSES)
    for tensors, rows in data.batches(256):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(**tensors), labels[rows]).backward()
        optimiser.step()
    return network
