"""One head of each kind, and outputs for them."""

import numpy as np
import pyarrow as pa
import torch

from batch_scoring.inference.heads.classification import Classification
from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.heads.regression import Regression

HEADS: dict[str, Head] = {
    "two classes": Classification(classes=("no", "yes")),
    "three classes": Classification(classes=("a", "b", "c")),
    "a value": Regression(),
}


def logits(width: int, rows: int = 200) -> np.ndarray:
    """Random float32[rows, width]."""
    return np.random.default_rng(width).normal(0, 2, (rows, width)).astype(np.float32)


def outputs(head: Head, rows: int = 200) -> np.ndarray:
    """Outputs of a network with this head, float32[rows, width]."""
    return logits(head.width, rows)


def block_of(head: Head, raw: np.ndarray) -> np.ndarray:
    """The activated block of raw outputs, float32[values, rows]."""
    return head.activate(torch.from_numpy(np.ascontiguousarray(raw.T, np.float32))).numpy()


def scored(head: Head, raw: np.ndarray) -> pa.RecordBatch:
    """The scores of raw outputs."""
    columns, _ = head.scores(block_of(head, raw))
    return pa.RecordBatch.from_pydict(columns)
