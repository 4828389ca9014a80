"""The task of a manifest: any of the heads, by its kind."""

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from batch_scoring.inference.heads.classification import Classification
from batch_scoring.inference.heads.labels import Labels
from batch_scoring.inference.heads.quantiles import Quantiles
from batch_scoring.inference.heads.regression import Regression
from batch_scoring.inference.heads.vector import Vector

Task: TypeAlias = Annotated[Classification | Labels | Regression | Quantiles | Vector, Field(discriminator="kind")]
TaskName = Literal["classification", "regression"]
"""Tasks that a name and the classes describe."""


def from_name(task: str, classes: Sequence[str]) -> dict[str, Any]:
    """The fields of the head that a name and classes describe."""
    return {"kind": task, "classes": list(classes)} if task == "classification" else {"kind": task}


def telling_column(columns: Collection[str]) -> str:
    """The head's `telling_column` of a published day, of whose model only the names of the measured columns are known.

    Args:
        columns: in the order of the table.
    """
    if "prediction_proba" not in columns:
        return next(iter(columns), "prediction")
    return "prob_class_1" if "prob_class_1" in columns and "prob_class_2" not in columns else "prediction_proba"
