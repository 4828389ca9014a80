"""A network that reads pictures, and functions that decode them, sound and faulty ones."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

SIDE = 6


class Seeing(nn.Module):
    """A convolution over one channel, with a number beside it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.layer = nn.Conv2d(1, 3, 3)
        self.last = nn.Linear(4, 2)

    def forward(self, image: torch.Tensor, numeric: torch.Tensor) -> torch.Tensor:
        found = torch.sigmoid(self.layer(image)).mean(dim=(2, 3))
        return self.last(torch.cat([found, numeric.nan_to_num(0.0)], dim=1))


def pictures(count: int, seed: int = 0) -> pa.RecordBatch:
    """Rows with a key, a number and the bytes of a picture of 6 by 6 points."""
    numbers = np.random.default_rng(seed)
    cells = [numbers.integers(0, 256, SIDE * SIDE).astype(np.uint8).tobytes() for _ in range(count)]
    return pa.RecordBatch.from_pydict(
        {
            "id": [f"p{seed}-{row}" for row in range(count)],
            "x": pa.array(numbers.normal(size=count)),
            "photo": pa.array(cells, pa.binary()),
        }
    )


def encode(rows: pa.RecordBatch, fitted: dict[str, Any]) -> dict[str, Any]:
    """Decode each picture; one that has not 36 bytes raises."""
    images = [np.frombuffer(cell, np.uint8).reshape(1, SIDE, SIDE) for cell in rows["photo"].to_pylist()]
    return {"image": np.array(images, np.float32).reshape(-1, 1, SIDE, SIDE) / np.float32(fitted.get("largest", 255))}


def _images(rows: pa.RecordBatch) -> np.ndarray:
    return np.asarray(encode(rows, {})["image"])


def less_the_mean(rows: pa.RecordBatch, fitted: dict[str, Any]) -> dict[str, Any]:
    images = _images(rows)
    return {"image": images - images.mean()}


def by_the_largest(rows: pa.RecordBatch, fitted: dict[str, Any]) -> dict[str, Any]:
    images = _images(rows)
    return {"image": images / images.max(initial=0.1)}


def noisy(rows: pa.RecordBatch, fitted: dict[str, Any]) -> dict[str, Any]:
    return {"image": _images(rows) + np.float32(random.random())}


def sorted_rows(rows: pa.RecordBatch, fitted: dict[str, Any]) -> dict[str, Any]:
    images = _images(rows)
    return {"image": images[np.argsort(images.sum(axis=(1, 2, 3)))]}


DEPENDENT: tuple[Callable[[pa.RecordBatch, dict[str, Any]], dict[str, Any]], ...] = (
    less_the_mean,
    by_the_largest,
    noisy,
    sorted_rows,
)
