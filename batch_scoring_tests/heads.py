"""One head of each kind, and outputs for them."""

import numpy as np
import pyarrow as pa
import torch

from batch_scoring.inference.heads.classification import Classification
from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.heads.labels import Labels
from batch_scoring.inference.heads.quantiles import Quantiles
from batch_scoring.inference.heads.regression import Regression
from batch_scoring.inference.heads.vector import Vector

HEADS: dict[str, Head] = {
    "two classes": Classification(classes=("no", "yes")),
    "three classes": Classification(classes=("a", "b", "c")),
    "one logit": Classification(classes=("no", "yes"), logits=1),
    "own softmax": Classification(classes=("a", "b", "c"), outputs="probabilities"),
    "own sigmoid": Classification(classes=("no", "yes"), logits=1, outputs="probabilities"),
    "top 3": Classification(classes=tuple(f"c{number}" for number in range(20)), top=3),
    "many classes": Classification(classes=tuple(f"c{number}" for number in range(60))),
    "own top 2": Classification(classes=tuple("abcd"), top=2, outputs="probabilities"),
    "labels": Labels(labels=("fast", "cheap", "good")),
    "own labels": Labels(labels=("fast", "cheap"), outputs="probabilities"),
    "a value": Regression(),
    "named values": Regression(targets=("price", "days")),
    "quantiles": Quantiles(levels=(0.05, 0.5, 0.975)),
    "outer quantiles": Quantiles(levels=(0.025, 0.9)),
    "a vector": Vector(size=24),
}


def logits(width: int, rows: int = 200) -> np.ndarray:
    """Random float32[rows, width]."""
    return np.random.default_rng(width).normal(0, 2, (rows, width)).astype(np.float32)


def outputs(head: Head, rows: int = 200) -> np.ndarray:
    """Outputs of a network with this head, float32[rows, width]."""
    raw = torch.from_numpy(logits(head.width, rows))
    if head.gives == "probabilities":
        raw = raw.softmax(dim=1) if head.is_exclusive and head.width > 1 else raw.sigmoid()
    return raw.numpy()


def block_of(head: Head, raw: np.ndarray) -> np.ndarray:
    """The activated block of raw outputs, float32[values, rows]."""
    return head.activate(torch.from_numpy(np.ascontiguousarray(raw.T, np.float32))).numpy()


def scored(head: Head, raw: np.ndarray) -> pa.RecordBatch:
    """The scores of raw outputs."""
    columns, _ = head.scores(block_of(head, raw))
    return pa.RecordBatch.from_pydict(columns)
