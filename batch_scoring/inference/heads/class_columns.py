"""The columns of a classification: the probability of every class, or the likeliest classes alone."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from batch_scoring.inference.heads.head import list_of, lists

if TYPE_CHECKING:
    import torch

SUM = 1e-3
"""How far the sum of a row's probabilities may be from 1."""

_PREDICTED = (pa.field("prediction", pa.int64()), pa.field("prediction_proba", pa.float32()))


class ClassColumns(ABC):
    """What becomes of the probabilities of classes."""

    @property
    @abstractmethod
    def values(self) -> int:
        """Columns of the block."""

    @property
    @abstractmethod
    def fields(self) -> tuple[pa.Field, ...]:
        """The columns of predictions."""

    @property
    @abstractmethod
    def of_classes(self) -> tuple[str, ...]:
        """The columns with the probability of one class."""

    @abstractmethod
    def block(self, probabilities: "torch.Tensor") -> "torch.Tensor":
        """float32[values, rows] of float32[classes, rows]."""

    @abstractmethod
    def scores(self, block: np.ndarray) -> tuple[dict[str, pa.Array], np.ndarray]:
        """See `Head.scores`."""

    @abstractmethod
    def scores_of_eager(self, probabilities: np.ndarray) -> dict[str, pa.Array]:
        """The columns of float32[rows, classes], another way."""

    @abstractmethod
    def is_sound(self, scores: pa.RecordBatch) -> np.ndarray:
        """See `Head.is_sound`."""


@dataclass(frozen=True)
class EveryClass(ClassColumns):
    """prediction, prediction_proba, prob_class_0 and so on."""

    classes: int

    @property
    def values(self) -> int:
        """The probability of each."""
        return self.classes

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """The likeliest class as its position, its probability, and that of each class."""
        return (*_PREDICTED, *(pa.field(name, pa.float32()) for name in self.of_classes))

    @property
    def of_classes(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(f"prob_class_{index}" for index in range(self.classes))

    def block(self, probabilities: "torch.Tensor") -> "torch.Tensor":
        """The probabilities as they are."""
        return probabilities

    def scores(self, block: np.ndarray) -> tuple[dict[str, pa.Array], np.ndarray]:
        """See `Head.scores`."""
        winner, best = _best_class(block)
        columns = {"prediction": winner, "prediction_proba": best, **dict(zip(self.of_classes, block, strict=True))}
        with np.errstate(invalid="ignore"):  # a network's own probabilities may be infinite
            bad = ~np.isfinite(block.sum(axis=0))
        return {name: pa.array(values) for name, values in columns.items()}, bad

    def scores_of_eager(self, probabilities: np.ndarray) -> dict[str, pa.Array]:
        """See `ClassColumns.scores_of_eager`."""
        return _predicted(probabilities) | dict(zip(self.of_classes, map(pa.array, probabilities.T), strict=True))

    def is_sound(self, scores: pa.RecordBatch) -> np.ndarray:
        """Whether probabilities lie in 0 … 1 and sum to 1."""
        block = [scores.column(name).to_numpy() for name in self.of_classes]
        total = np.sum(block, axis=0)
        sound: np.ndarray = (np.abs(total - 1) < SUM) & (np.min(block, axis=0) >= 0) & (np.max(block, axis=0) <= 1)
        return sound


@dataclass(frozen=True)
class TopClasses(ClassColumns):
    """prediction, prediction_proba, top_classes and top_probs."""

    top: int

    @property
    def values(self) -> int:
        """Probabilities and positions of the likeliest classes, and the sum of all probabilities."""
        return 2 * self.top + 1

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """The likeliest class as its position, its probability, and those of the likeliest ones."""
        lists = pa.field("top_classes", list_of(pa.int64())), pa.field("top_probs", list_of(pa.float32()))
        return (*_PREDICTED, *lists)

    @property
    def of_classes(self) -> tuple[str, ...]:
        """None of them."""
        return ()

    def block(self, probabilities: "torch.Tensor") -> "torch.Tensor":
        """The likeliest classes, on the device: thousands of classes never become columns.

        The first of equal classes comes first, as it does in `EveryClass`; `torch.topk` promises no order.
        """
        import torch

        left, best, places = probabilities.clone(), [], []
        for _ in range(self.top):
            value, place = left.max(dim=0, keepdim=True)
            best.append(value)
            places.append(place.to(left.dtype))  # whole numbers up to 2**24 are exact
            left.scatter_(0, place, -torch.inf)
        return torch.cat([*best, *places, probabilities.sum(dim=0, keepdim=True)])

    def scores(self, block: np.ndarray) -> tuple[dict[str, pa.Array], np.ndarray]:
        """See `Head.scores`."""
        bad = ~np.isfinite(block[-1])
        probabilities, places = block[: self.top].T, np.where(bad, 0, block[self.top : -1]).T.astype(np.int64)
        columns = {
            "prediction": pa.array(np.ascontiguousarray(places[:, 0])),
            "prediction_proba": pa.array(np.ascontiguousarray(probabilities[:, 0])),
            "top_classes": lists(places),
            "top_probs": lists(probabilities),
        }
        return columns, bad

    def scores_of_eager(self, probabilities: np.ndarray) -> dict[str, pa.Array]:
        """See `ClassColumns.scores_of_eager`."""
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.top]
        likeliest = np.take_along_axis(probabilities, order, axis=1)
        return _predicted(probabilities) | {"top_classes": lists(order), "top_probs": lists(likeliest)}

    def is_sound(self, scores: pa.RecordBatch) -> np.ndarray:
        """Whether the likeliest classes' probabilities lie in 0 … 1, descend, and sum to 1 at most."""
        top = scores.column("top_probs").flatten().to_numpy().reshape(scores.num_rows, self.top)
        descends = (np.diff(top, axis=1) <= 0).all(axis=1)
        sound: np.ndarray = descends & (top[:, 0] <= 1) & (top[:, -1] >= 0) & (top.sum(axis=1) < 1 + SUM)
        return sound


def _predicted(probabilities: np.ndarray) -> dict[str, pa.Array]:
    """The likeliest class of float32[rows, classes] and its probability."""
    return {
        "prediction": pa.array(probabilities.argmax(axis=1), pa.int64()),
        "prediction_proba": pa.array(probabilities.max(axis=1)),
    }


def _best_class(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first largest class of each row of float32[classes, rows]: int64 position, float32 value, NaN if any is NaN.

    Class by class over contiguous rows: numpy's argmax over the first axis takes twice as long.
    """
    winner, best = np.zeros(block.shape[1], np.int64), block[0].copy()
    for index in range(1, len(block)):
        # a later class that is larger has a larger index: no row is looked up, which takes ten times as long
        np.maximum(winner, np.multiply(block[index] > best, index, dtype=np.int64), out=winner)
        np.maximum(best, block[index], out=best)
    return winner, best
