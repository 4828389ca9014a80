"""The code of a pipeline that a model needs: what a bundle, which is data only, is brought to life with."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import CodeError
from batch_scoring.inference.inputs import own_encoder
from batch_scoring.inference.inputs.transform import Function, Rules

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

NetworkClass = Callable[..., "torch.nn.Module"]
Fit = Callable[["pa.Table"], Mapping[str, Any]]


@dataclass(frozen=True)
class ModelCode:
    """The classes and functions of the pipeline's own package, as the spec names them."""

    network: NetworkClass
    """Builds the network from the bundle's arguments."""
    transform: Function | None = None
    """Makes the engineered features."""
    fit: Fit | None = None
    """Learns from the training rows what the transform needs; beside it in its module. Scoring never calls it."""
    encode: own_encoder.Function | None = None
    """Makes inputs of the network from rows."""
    rules: Rules | None = None
    """Which rows have impossible engineered features; `daily/model_code.py` adds those of the spec."""

    @classmethod
    def of(cls, pipeline: Pipeline) -> Self:
        """Import what the spec names.

        Raises:
            CodeError: a module cannot be imported, or lacks what the spec names; or two of them define fit.
        """
        features, network = pipeline.spec.features, pipeline.load(pipeline.spec.model.network)
        transform = pipeline.load(features.transform) if features.transform else None
        encode = pipeline.load(features.encode) if features.encode else None
        modules = [reference.split(":")[0] for reference in (features.transform, features.encode) if reference]
        fits = {module: getattr(sys.modules[f"{pipeline.package}.{module}"], "fit", None) for module in modules}
        found = dict.fromkeys(filter(None, fits.values()))
        if len(found) > 1:
            raise CodeError(
                f"{pipeline.name}: {' and '.join(fits)} both define fit, and one of them learns what both functions "
                "get: define it in one module, and import it in the other"
            )
        return cls(network, transform, next(iter(found), None), encode)

    @classmethod
    def given(cls, code: "ModelCode | NetworkClass") -> "ModelCode":
        """The code as it is, or that of a model which needs its network's class alone."""
        return code if isinstance(code, ModelCode) else cls(network=code)
