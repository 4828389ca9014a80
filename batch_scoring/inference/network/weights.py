"""Weights and buffers of a network, written to a file and loaded into the pipeline's own class.

The content of a file is never trusted: names, shapes, types and values are compared with those of the class before
anything is allocated for them.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from batch_scoring.errors import UnsoundError, is_out_of_memory
from batch_scoring.runtime.printable import some

if TYPE_CHECKING:
    import torch

Weights = Mapping[str, "torch.Tensor"]


def saved(network: "torch.nn.Module") -> bytes:
    """A safetensors file of the network's `state_dict()`.

    Weights that are tied, views of one another or not contiguous are written separately: the class ties them again.

    Raises:
        UnsoundError: it is a wrapper of torch, has more than tensors, or they are not on the CPU.
    """
    import safetensors.torch
    import torch

    if type(network).__module__.partition(".")[0] == "torch":
        raise UnsoundError(
            f"the network is a {type(network).__name__}, torch's own class; expected the pipeline's, which can be "
            "built again: the module within (network.module, or network._orig_mod of a compiled one)"
        )
    own = network.state_dict()
    if other := [name for name, value in own.items() if not isinstance(value, torch.Tensor)]:
        raise UnsoundError(f"{', '.join(other)} of the network's state_dict() is not a tensor; expected tensors only")
    if other := [name for name, value in own.items() if value.device.type != "cpu"]:
        kind = own[other[0]].device.type
        raise UnsoundError(f"{other[0]} is on the device {kind}; write the bundle of network.cpu()")
    return safetensors.torch.save({name: value.contiguous().clone() for name, value in own.items()})


def read(data: bytes, where: str) -> Weights:
    """Read the tensors of a safetensors file; `where`: its name, for the message.

    Raises:
        UnsoundError: it is not such a file.
    """
    import safetensors.torch

    try:
        return safetensors.torch.load(data)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UnsoundError(f"{where} is not a safetensors file: {error}") from error


def build(
    network_class: Callable[..., "torch.nn.Module"], arguments: dict[str, Any], weights: Weights, where: str
) -> "torch.nn.Module":
    """Build the network from its class and the weights, which have to fit exactly.

    Shapes are compared on the meta device first: arguments that need more memory than the machine has are the file's
    fault, not the machine's, and nothing is allocated for them.

    Args:
        network_class: of the pipeline.
        arguments: for the class.
        weights: those found in the file.
        where: the file, for the message.

    Raises:
        UnsoundError: the class rejects the arguments; a weight is missing, surplus, of another shape or type, NaN, or
            infinite where the class itself has no such value.
    """
    import torch

    name = _name(network_class)
    with torch.random.fork_rng(devices=[]):  # a training script that goes on keeps its random state
        sketch = _sketch(network_class, arguments)
        if sketch is not None:
            _check_fit(sketch, weights, where, name)
        network = _built(network_class, arguments, name, sketch)
    if sketch is None:
        _check_fit(network, weights, where, name)
    _check_values(network, weights, where, name)
    _load(network, weights, where, name)
    return network.eval().requires_grad_(False)


def outline(network_class: Callable[..., "torch.nn.Module"], arguments: dict[str, Any]) -> "torch.nn.Module":
    """Build the network for the names, shapes and types of its weights only; without memory for them if possible.

    Raises:
        UnsoundError: the class rejects the arguments.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        sketch = _sketch(network_class, arguments)
        return _built(network_class, arguments, _name(network_class), None) if sketch is None else sketch


def _name(network_class: Callable[..., "torch.nn.Module"]) -> str:
    return getattr(network_class, "__name__", "the network")


def _sketch(network_class: Callable[..., "torch.nn.Module"], arguments: dict[str, Any]) -> "torch.nn.Module | None":
    """The network on the meta device; None if the class needs real numbers to be built."""
    import torch

    try:
        with torch.device("meta"), _leaves_unfilled():
            return network_class(**arguments)
    except Exception:  # its error for real numbers counts
        return None


def _leaves_unfilled() -> contextlib.AbstractContextManager[object]:
    """Leave out what fills tensors with random numbers, which a sketch has no room for.

    On the meta device, `normal_` (of every nn.Embedding) imports torch's compiler: a second of CPU time per process.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class LeavesUnfilled(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Any,  # noqa: ANN401
            types: object,
            args: tuple[Any, ...] = (),
            kwargs: dict[str, Any] | None = None,
        ) -> Any:  # noqa: ANN401
            if func is torch.Tensor.normal_ or getattr(func, "__module__", "") == "torch.nn.init":
                return args[0] if args else (kwargs or {})["tensor"]
            return func(*args, **(kwargs or {}))

    return LeavesUnfilled()


def _built(
    network_class: Callable[..., "torch.nn.Module"],
    arguments: dict[str, Any],
    name: str,
    sketch: "torch.nn.Module | None",
) -> "torch.nn.Module":
    try:
        return network_class(**arguments)
    except Exception as error:
        if is_out_of_memory(error) and not _is_beyond_memory(sketch):
            raise  # the machine's fault, not the bundle's
        raise UnsoundError(f"{name}(**{arguments}) failed: {error!r}") from error


def _is_beyond_memory(sketch: "torch.nn.Module | None") -> bool:
    """Whether the tensors of a network on the meta device need more memory than the machine has."""
    import torch

    if sketch is None:
        return False
    tensors = [value for module in sketch.modules() for value in vars(module).values()]
    tensors += [*sketch.parameters(), *sketch.buffers()]
    wanted = sum(value.nbytes for value in tensors if isinstance(value, torch.Tensor))
    return wanted > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _check_fit(network: "torch.nn.Module", weights: Weights, where: str, name: str) -> None:
    """Check names, shapes and types; the network may be on the meta device."""
    import torch
    from torch.nn.parameter import is_lazy

    own = network.state_dict(keep_vars=True)
    there = {id(value) for key, value in own.items() if key in weights}  # a tied weight goes under several names
    if missing := sorted(key for key, value in own.items() if key not in weights and id(value) not in there):
        raise UnsoundError(f"{where} lacks {some(missing)}, which {name} needs")
    if extra := sorted(weights.keys() - own.keys()):
        raise UnsoundError(f"{where} has {some(extra)}, which {name} does not have")
    given = [(weight, weights[weight], expected) for weight, expected in own.items() if weight in weights]
    for weight, values, expected in given:
        if not is_lazy(expected) and values.shape != expected.shape:
            raise UnsoundError(
                f"{where}: {weight} has shape {tuple(values.shape)}; {name} expects {tuple(expected.shape)}"
            )
        if values.layout != torch.strided:
            raise UnsoundError(
                f"{where}: {weight} is {values.dtype} ({values.layout}); {name} expects {expected.dtype}, dense"
            )
    other = [weight for weight, values, expected in given if values.dtype != expected.dtype]
    if other:
        first, more = other[0], f" and {len(other) - 1} more are" if other[1:] else " is"
        raise UnsoundError(
            f"{where}: {first}{more} {weights[first].dtype}; {name} expects {own[first].dtype}: save the network "
            f"after network.to({own[first].dtype})"
        )


def _check_values(network: "torch.nn.Module", weights: Weights, where: str, name: str) -> None:
    """Check for NaN, and for infinity where the network as built has none: the -inf of a causal mask is intended."""
    import torch
    from torch.nn.parameter import is_lazy

    own, parameters = network.state_dict(), dict(network.named_parameters(remove_duplicate=False))
    for weight, values in sorted(weights.items()):
        bad = ~torch.isfinite(values)
        if weight not in parameters and not is_lazy(own[weight]):
            bad &= torch.isnan(values) | (values != own[weight])
        if count := int(bad.sum()):
            advice = "" if weight in parameters else f"; a buffer may hold infinity where {name} builds it so"
            raise UnsoundError(
                f"{where}: {weight} has {count} of {values.numel()} values that are NaN or infinite{advice}"
            )


def _load(network: "torch.nn.Module", weights: Weights, where: str, name: str) -> None:
    """Load the weights; of those that the class ties, the file may hold one, or all with the same values."""
    import torch

    try:
        network.load_state_dict(dict(weights), strict=False)  # the names are checked already
    except RuntimeError as error:
        raise UnsoundError(f"{where} cannot be loaded into {name}: {' '.join(str(error).split())}") from error
    loaded = network.state_dict()
    if other := [weight for weight, values in weights.items() if not torch.equal(loaded[weight], values)]:
        raise UnsoundError(
            f"{where}: {', '.join(other)} shares its memory with another weight in {name}, and the file has other "
            "values for the two"
        )
