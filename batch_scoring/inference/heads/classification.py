"""Classification: one of several classes for each row."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.heads.names import Names
from batch_scoring.inference.heads.tolerance import OF_LOGITS, Tolerance

if TYPE_CHECKING:
    import torch


class Classification(Head):
    """One of several classes, from a logit each: prediction, prediction_proba, prob_class_0 and so on."""

    kind: Literal["classification"] = "classification"
    classes: Names = Field(description="meaning of prob_class_0 …, in the order of the network's outputs")

    rule: ClassVar[str] = "all scores are probabilities"
    broken: ClassVar[str] = "are not probabilities"
    tolerance: ClassVar[Tolerance] = OF_LOGITS
    sums_to_one: ClassVar[bool] = True

    @model_validator(mode="after")
    def _has_classes(self) -> Self:
        if len(self.classes) < 2:
            raise ValueError(
                f"classes are {list(self.classes)}; a classification has at least two (one class has probability 1 in "
                "every row). A network with one output, a logit z, returns torch.cat([torch.zeros_like(z), z], dim=1)"
            )
        return self

    @property
    def width(self) -> int:
        """A logit for each class."""
        return len(self.classes)

    @property
    def gives(self) -> Literal["logits"]:
        """Logits."""
        return "logits"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """The likeliest class as its position, its probability, and that of each class."""
        return (
            pa.field("prediction", pa.int64()),
            pa.field("prediction_proba", pa.float32()),
            *(pa.field(name, pa.float32()) for name in self._of_classes),
        )

    @property
    def measured(self) -> tuple[str, ...]:
        """All probabilities."""
        return ("prediction_proba", *self._of_classes)

    @property
    def probabilities(self) -> tuple[str, ...]:
        """All of them."""
        return self.measured

    @property
    def expected_columns(self) -> tuple[str, ...]:
        """The probability of each class."""
        return self._of_classes

    @property
    def score_columns(self) -> tuple[str, ...]:
        """Of two classes the probability of the second, which determines the other; else all of them."""
        return self._of_classes[1:] if len(self.classes) == 2 else self._of_classes

    @property
    def confidence_column(self) -> str:
        """The probability of the likeliest class."""
        return "prediction_proba"

    @property
    def telling_column(self) -> str:
        """Of two classes the probability of the second."""
        return self._of_classes[1] if len(self.classes) == 2 else "prediction_proba"

    @property
    def _of_classes(self) -> tuple[str, ...]:
        return tuple(f"prob_class_{index}" for index in range(len(self.classes)))

    def activate(self, raw: "torch.Tensor") -> "torch.Tensor":
        """The probabilities."""
        return raw.softmax(dim=0)

    def scores(self, block: np.ndarray) -> tuple[dict[str, pa.Array], np.ndarray]:
        """See `Head.scores`."""
        winner, best = _best_class(block)
        columns = {"prediction": winner, "prediction_proba": best, **dict(zip(self._of_classes, block, strict=True))}
        return {name: pa.array(values) for name, values in columns.items()}, np.isnan(best)

    def scores_of_eager(self, found: np.ndarray) -> dict[str, pa.Array]:
        """See `Head.scores_of_eager`."""
        import torch

        probabilities = torch.softmax(torch.from_numpy(found), dim=1).numpy()
        columns = {
            "prediction": pa.array(found.argmax(axis=1), pa.int64()),
            "prediction_proba": pa.array(probabilities.max(axis=1)),
        }
        return columns | {
            name: pa.array(values) for name, values in zip(self._of_classes, probabilities.T, strict=True)
        }

    def is_sound(self, scores: pa.RecordBatch) -> np.ndarray:
        """Whether probabilities lie in 0 … 1 and sum to 1."""
        block = [scores.column(name).to_numpy() for name in self._of_classes]
        total = np.sum(block, axis=0)
        sound: np.ndarray = (np.abs(total - 1) < 1e-3) & (np.min(block, axis=0) >= 0) & (np.max(block, axis=0) <= 1)
        return sound


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
