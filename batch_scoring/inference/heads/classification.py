"""Classification: one of several classes for each row."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from batch_scoring.inference.heads.class_columns import ClassColumns, EveryClass, TopClasses
from batch_scoring.inference.heads.head import Gives, Head
from batch_scoring.inference.heads.names import Names
from batch_scoring.inference.heads.tolerance import OF_LOGITS, Tolerance

if TYPE_CHECKING:
    import torch

MANY = 50
"""Number of classes above which the likeliest ones alone become columns, unless `top` says otherwise."""
USUAL_TOP = 5


class Classification(Head):
    """One of several classes."""

    kind: Literal["classification"] = "classification"
    classes: Names = Field(description="meaning of prob_class_0 …, in the order of the network's outputs")
    logits: Literal[1] | None = Field(
        default=None, description="1: of two classes the network gives one output, that of the second"
    )
    top: int | None = Field(
        default=None,
        ge=0,
        description="how many of the likeliest classes are written, in place of a column for each; 0: a column for "
        f"each; if not given, 0 up to {MANY} classes and {USUAL_TOP} beyond",
    )
    outputs: Literal["logits", "probabilities"] = Field(
        default="logits", description="probabilities: the network ends in its own softmax or sigmoid"
    )

    tolerance: ClassVar[Tolerance] = OF_LOGITS
    is_exclusive: ClassVar[bool] = True

    @model_validator(mode="after")
    def _fits_classes(self) -> Self:
        found = len(self.classes)
        if found < 2:
            raise ValueError(
                f"classes are {list(self.classes)}; a classification has at least two (one class has probability 1 in "
                "every row). Of a network with one output, name both classes and say logits: 1"
            )
        if self.logits == 1 and found > 2:
            raise ValueError(f"logits is 1, but there are {found} classes; expected two, or an output for each")
        if self.top is not None and self.top > found:
            raise ValueError(f"top is {self.top}, but there are {found} classes")
        return self

    @property
    def width(self) -> int:
        """An output for each class, or one for two."""
        return self.logits or len(self.classes)

    @property
    def values(self) -> int:
        """Those of the columns."""
        return self._columns.values

    @property
    def gives(self) -> Gives:
        """Logits or probabilities."""
        return self.outputs

    @property
    def rule(self) -> str:
        """Probabilities; if they are the likeliest ones alone, in order."""
        return "all scores are probabilities" + ", the likeliest first" * bool(self._top)

    @property
    def broken(self) -> str:
        """The opposite."""
        return "are not probabilities"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """See `class_columns.py`."""
        return self._columns.fields

    @property
    def measured(self) -> tuple[str, ...]:
        """All columns with one probability."""
        return ("prediction_proba", *self._columns.of_classes)

    @property
    def probabilities(self) -> tuple[str, ...]:
        """All of them."""
        return self.measured

    @property
    def expected_columns(self) -> tuple[str, ...]:
        """The probability of each class, or of the likeliest."""
        return self._columns.of_classes or self.measured

    @property
    def score_columns(self) -> tuple[str, ...]:
        """Of two classes the probability of the second, which determines the other; else all of them."""
        return self.expected_columns[1:] if len(self.expected_columns) == 2 else self.expected_columns

    @property
    def confidence_column(self) -> str:
        """The probability of the likeliest class."""
        return "prediction_proba"

    @property
    def telling_column(self) -> str:
        """Of two classes the probability of the second."""
        return self.expected_columns[1] if len(self.expected_columns) == 2 else self.confidence_column

    @property
    def _top(self) -> int:
        if self.top is None:
            return USUAL_TOP if len(self.classes) > MANY else 0
        return self.top

    @property
    def _columns(self) -> ClassColumns:
        return TopClasses(self._top) if self._top else EveryClass(len(self.classes))

    def activate(self, raw: "torch.Tensor") -> "torch.Tensor":
        """The probabilities: a softmax, unless the network gives them; beside one logit, the other one's is 0."""
        import torch

        if self.outputs == "probabilities":
            return self._columns.block(torch.cat([1 - raw, raw]) if self.logits else raw)
        both = torch.cat([torch.zeros_like(raw), raw]) if self.logits else raw
        return self._columns.block(both.softmax(dim=0))

    def scores(self, block: np.ndarray) -> tuple[dict[str, pa.Array], np.ndarray]:
        """See `Head.scores`."""
        return self._columns.scores(block)

    def scores_of_eager(self, found: np.ndarray) -> dict[str, pa.Array]:
        """See `Head.scores_of_eager`."""
        import torch

        if self.outputs == "logits":
            own = torch.from_numpy(found)
            found = (torch.sigmoid(own) if self.logits else torch.softmax(own, dim=1)).numpy()
        return self._columns.scores_of_eager(np.hstack([1 - found, found]) if self.logits else found)

    def is_sound(self, scores: pa.RecordBatch) -> np.ndarray:
        """See `class_columns.py`."""
        return self._columns.is_sound(scores)
