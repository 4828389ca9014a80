"""Labels: any number of them for each row."""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from batch_scoring.inference.heads.head import Gives, Head, list_of
from batch_scoring.inference.heads.names import Names
from batch_scoring.inference.heads.tolerance import OF_LOGITS, Tolerance

if TYPE_CHECKING:
    import torch

LEAST = 0.5
"""Probability from which a label is predicted."""


class Labels(Head):
    """Several labels at once, from an output each: prediction, prediction_proba, prob_label_0 and so on."""

    kind: Literal["labels"] = "labels"
    labels: Names = Field(min_length=1, description="meaning of prob_label_0 …, in the order of the network's outputs")
    outputs: Literal["logits", "probabilities"] = Field(
        default="logits", description="probabilities: the network ends in its own sigmoid"
    )

    tolerance: ClassVar[Tolerance] = OF_LOGITS

    @property
    def width(self) -> int:
        """An output for each label."""
        return len(self.labels)

    @property
    def gives(self) -> Gives:
        """Logits or probabilities."""
        return self.outputs

    @property
    def rule(self) -> str:
        """Probabilities, which need not sum to 1."""
        return "all scores are probabilities"

    @property
    def broken(self) -> str:
        """The opposite."""
        return "are not probabilities"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels."""
        return self.labels

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """The positions of the labels with a probability of 0.5 or more, the mean confidence, and each probability."""
        return (
            pa.field("prediction", list_of(pa.int64())),
            pa.field("prediction_proba", pa.float32()),
            *(pa.field(name, pa.float32()) for name in self._of_labels),
        )

    @property
    def probabilities(self) -> tuple[str, ...]:
        """All columns with a number."""
        return self.measured

    @property
    def expected_columns(self) -> tuple[str, ...]:
        """The probability of each label."""
        return self._of_labels

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The probability of each label."""
        return self._of_labels

    @property
    def confidence_column(self) -> str:
        """The mean over the labels of the probability that what is predicted of each is right."""
        return "prediction_proba"

    @property
    def _of_labels(self) -> tuple[str, ...]:
        return tuple(f"prob_label_{index}" for index in range(len(self.labels)))

    def activate(self, raw: "torch.Tensor") -> "torch.Tensor":
        """The probabilities: a sigmoid, unless the network gives them."""
        return raw if self.outputs == "probabilities" else raw.sigmoid()

    def scores(self, block: np.ndarray) -> tuple[dict[str, pa.Array], np.ndarray]:
        """See `Head.scores`."""
        # a label at a time: numpy sums a single row in another order
        confidence = np.zeros(block.shape[1], np.float32)
        for column in block:
            confidence += np.maximum(column, 1 - column)
        columns = {
            "prediction": _positions(block >= LEAST),
            "prediction_proba": pa.array(confidence / np.float32(len(block))),
            **dict(zip(self._of_labels, map(pa.array, block), strict=True)),
        }
        return columns, np.logical_not(np.isfinite(block).all(axis=0))

    def scores_of_eager(self, found: np.ndarray) -> dict[str, pa.Array]:
        """See `Head.scores_of_eager`."""
        import torch

        chances = torch.sigmoid(torch.from_numpy(found)).numpy() if self.outputs == "logits" else found
        predicted = [[label for label, chance in enumerate(row) if chance >= LEAST] for row in chances]
        columns = {
            "prediction": pa.array(predicted, list_of(pa.int64())),
            "prediction_proba": pa.array((0.5 + np.abs(chances - 0.5)).mean(axis=1, dtype=np.float64), pa.float32()),
        }
        return columns | dict(zip(self._of_labels, map(pa.array, chances.T), strict=True))

    def is_sound(self, scores: pa.RecordBatch) -> np.ndarray:
        """Whether every probability lies in 0 … 1."""
        sound = np.ones(scores.num_rows, bool)
        for name in self._of_labels:
            values = scores.column(name).to_numpy()
            sound &= (values >= 0) & (values <= 1)
        return sound

    def class_counts(self, scores: pa.RecordBatch | pa.Table) -> np.ndarray:
        """int64[labels]: how often each label is predicted."""
        return np.array([np.count_nonzero(scores.column(name).to_numpy() >= LEAST) for name in self._of_labels])


def _positions(is_predicted: np.ndarray) -> pa.Array:
    """The labels of each row, from bool[labels, rows]."""
    _, labels = np.nonzero(is_predicted.T)
    offsets = np.concatenate([[0], np.cumsum(is_predicted.sum(axis=0))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(labels, pa.int64()), type=list_of(pa.int64()))
