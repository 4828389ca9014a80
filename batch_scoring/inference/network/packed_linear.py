"""Linear layers with weights packed for the CPU, used where tests show that they give the network's own outputs.

oneDNN multiplies by weights in a layout of its own. torch packs them when it compiles a network, by private operators;
so torch is pinned in pyproject.toml, and where the operators are missing a network stays as it is.

Behaviour that a network's outputs do not show is preserved by construction: each layer is replaced by itself, never
with what follows it (oneDNN's fused ReLU gives 0 for NaN, and a network may take its sequences apart), and a layer that
is more than `torch.nn.Linear` is left alone. What remains to be shown, that a packed layer gives a linear layer's
outputs up to the last bits, is tested against the eager network on rows of its own (`proven`); if they differ, the
network stays eager. A row's outputs differ from eager's in the last bits, and are the same in every batch on the grid.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import nn
from torch.nn import functional

from batch_scoring.errors import is_out_of_memory

LAST_BITS = 1e-5
"""Largest difference of an output from eager's, as a share of the largest in its column. Sums in another order differ
by some 1e-6; a lost or doubled layer by the size of the outputs."""

_BATCH_ROWS = 8_192
"""Rows for which the layout is optimised."""


@dataclass(frozen=True)
class ProbeRows:
    """Rows on which a packed network is compared with the eager one."""

    name: str
    """A description of the rows, for the log."""
    inputs: tuple[torch.Tensor, ...]
    """In the order of the network's parameters."""


def proven(network: nn.Module, probes: Iterable[ProbeRows]) -> tuple[nn.Module, str]:
    """The network with packed layers, if these give the eager network's outputs for every probe.

    Args:
        network: in evaluation mode, on the CPU; unchanged.
        probes: rows like those to be scored.

    Returns:
        The network to score with, and the reason if it is the eager one although it has layers to pack.
    """
    try:
        fast = packed(network)
        if fast is network:
            return network, ""
        with torch.inference_mode():
            for probe in probes:
                if difference := _disagreement(network, fast, probe):
                    return network, f"packed layers give other outputs for {probe.name}: {difference}"
    except Exception as error:  # whatever an unusual network raises when it is copied
        if is_out_of_memory(error):
            raise  # where there is more memory the same network would be packed, and have other last bits
        return network, f"its layers cannot be packed: {_summary(error)}"
    return fast, ""


def packed(network: nn.Module) -> nn.Module:
    """The network with packed layers, sharing all else with the original; the original if there is nothing to pack."""
    try:
        torch.ops.mkldnn._linear_pointwise, torch.ops.mkldnn._reorder_linear_weight  # noqa: B018  (are they there)
        return _packed(network, {})
    except (AttributeError, RuntimeError):  # another processor, or a build without oneDNN
        return network


class PackedLinear(nn.Linear):
    """A linear layer with packed weights, for inference."""

    def __init__(self, layer: nn.Linear) -> None:
        with torch.device("meta"):
            super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None)
        self.weight, self.bias = layer.weight, layer.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), _BATCH_ROWS)
        self.eval()

    def __deepcopy__(self, memo: dict[int, object]) -> "PackedLinear":
        return self  # a packed layer is immutable, and its weights have no storage to copy

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """float32[…, out_features] of float32[…, in_features]; other inputs go to torch's own linear layer."""
        if not self._takes(values):
            return functional.linear(values, self.weight, self.bias)
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(values, self._packed, self.bias, "none", [], "")
        return result

    def _takes(self, values: torch.Tensor) -> bool:
        return (
            type(values) is torch.Tensor
            and values.dtype is torch.float32
            and values.dim() > 1
            and values.shape[-1] == self.in_features
            and values.numel() > 0
            and values.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
        )


class PackedSequential(nn.Sequential):
    """A sequence with packed layers, in which a ReLU after one overwrites its result.

    Called as a whole, it holds the only reference to that result. Taken apart by its network, it is an ordinary
    sequence.
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Apply the modules one after the other."""
        is_fresh = False
        for module in self:
            values = torch.relu_(values) if is_fresh and _is_plain(module, nn.ReLU) else module(values)
            is_fresh = type(module) is PackedLinear and not _has_hooks(module)
        return values


def _packed(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """A copy of a module with packed layers; the module itself if it has none, or is not plain Python.

    A module used in two places stays one.
    """
    if module in done:
        return done[module]
    done[module] = module
    if _is_packable(module):
        done[module] = PackedLinear(module)
    elif not isinstance(module, torch.jit.ScriptModule):  # its code is compiled for the layers that it has
        children = dict(module._modules)
        ours = {name: child and _packed(child, done) for name, child in children.items()}
        if any(ours[name] is not child for name, child in children.items()):
            done[module] = mine = copy.copy(module)
            mine._modules = ours
            if _is_plain(mine, nn.Sequential):
                mine.__class__ = PackedSequential
    return done[module]


def _is_packable(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is an unmodified linear layer of float32."""
    return _is_plain(module, nn.Linear) and all(
        type(values) is nn.Parameter
        and values.dtype is torch.float32
        and values.device.type == "cpu"
        and values.layout is torch.strided
        for values in (module.weight, module.bias)
        if values is not None
    )


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is exactly of this class, with its own `forward` and without hooks."""
    return type(module) is kind and "forward" not in module.__dict__ and not _has_hooks(module)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _disagreement(network: nn.Module, fast: nn.Module, probe: ProbeRows) -> str:
    """How the outputs for a probe differ; empty if they agree."""
    try:
        expected = network(*(values.clone() for values in probe.inputs))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return ""  # such rows have no score, whichever way they are computed
    try:
        found = fast(*(values.clone() for values in probe.inputs))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return f"they raise {_summary(error)}"
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return f"{found.dtype}{list(found.shape)}, expected {expected.dtype}{list(expected.shape)}"
    finite = expected.isfinite()
    if not torch.equal(found[~finite].nan_to_num(), expected[~finite].nan_to_num()) or not torch.equal(
        found.isfinite(), finite
    ):
        return "NaN or infinity in other places"
    largest = expected.abs().where(finite, 0.0).amax(dim=0, keepdim=True) if len(expected) else expected
    beyond = ((found - expected).abs() > LAST_BITS * largest) & finite
    if not beyond.any():
        return ""
    return f"by {(found - expected).abs()[beyond].max().item():.2g}, of at most {largest.max().item():.2g}"


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
