"""The code of a pipeline that a model needs: what a bundle, which is data only, is brought to life with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from batch_scoring.config.pipeline import Pipeline

if TYPE_CHECKING:
    import torch

NetworkClass = Callable[..., "torch.nn.Module"]


@dataclass(frozen=True)
class ModelCode:
    """The classes and functions of the pipeline's own package, as the spec names them."""

    network: NetworkClass
    """Builds the network from the bundle's arguments."""

    @classmethod
    def of(cls, pipeline: Pipeline) -> Self:
        """Import what the spec names.

        Raises:
            CodeError: a module cannot be imported, or lacks what the spec names.
        """
        return cls(network=pipeline.load(pipeline.spec.model.network))

    @classmethod
    def given(cls, code: "ModelCode | NetworkClass") -> "ModelCode":
        """The code as it is, or that of a model which needs its network's class alone."""
        return code if isinstance(code, ModelCode) else cls(network=code)
