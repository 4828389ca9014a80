"""What a pickle may call: descriptions of tensors and plain dicts, under the names of what torch calls for them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.checkpoints.stored import OpaqueObject, Storage

if TYPE_CHECKING:
    import torch

LONGEST_NAME = 1_000
"""Of a class, a function or a weight."""

_TORCH = ("torch", "torch.cuda", "torch.storage")


@dataclass(frozen=True)
class Global:
    """A class or function that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def pairs(items: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Those with a short text or number as their key: to hash a nested tuple, or compare long texts, takes for ever."""
    return {key: value for key, value in items if _is_key(key)}


def _is_key(key: object) -> bool:
    if isinstance(key, str | bytes):
        return len(key) <= LONGEST_NAME
    return key is None or isinstance(key, float) or (isinstance(key, int) and key.bit_length() < 64)


def storage_type(name: object) -> "torch.dtype":
    """The type of the numbers in a storage of a class such as `torch.FloatStorage`.

    Raises:
        UnsoundError: there is no such class.
    """
    import torch

    types = {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Untyped": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
        "QUInt8": torch.quint8,
        "QInt8": torch.qint8,
        "QInt32": torch.qint32,
        "QUInt4x2": torch.quint4x2,
        "QUInt2x4": torch.quint2x4,
    }
    kind = name.name.removesuffix("Storage") if isinstance(name, Global) and name.module in _TORCH else ""
    if kind not in types:
        raise UnsoundError(f"a storage of the type {name if isinstance(name, Global) else 'unknown'}")
    return types[kind]


@dataclass(frozen=True)
class TypedStorage:
    """A storage with the type of its numbers."""

    storage: Storage
    dtype: "torch.dtype"


def _tensor(storage: object, offset: object, shape: object, stride: object, *rest: object) -> object:
    """See `torch._utils._rebuild_tensor_v2`: after the stride come requires_grad, hooks and metadata."""
    if not isinstance(storage, TypedStorage):
        raise UnsoundError("a tensor without a storage")
    if rest[2:] and rest[2]:
        return OpaqueObject("conjugate or negative view of a tensor")
    return storage.storage.tensor(storage.dtype, offset, shape, stride)


def _tensor_with_type(storage: object, offset: object, shape: object, stride: object, *rest: object) -> object:
    """See `torch._utils._rebuild_tensor_v3`: its storage has no type."""
    import torch

    _, _, named, *metadata = rest
    dtype = getattr(torch, named.name, None) if isinstance(named, Global) and named.module == "torch" else None
    if not isinstance(storage, TypedStorage) or not isinstance(dtype, torch.dtype):
        raise UnsoundError("a tensor without a storage or a type")
    return _tensor(TypedStorage(storage.storage, dtype), offset, shape, stride, None, None, *metadata)


def _first(data: object, *_: object) -> object:
    """See `torch._utils._rebuild_parameter` and `torch.Size`: the tensor, the tuple."""
    return data


def _of_subclass(function: object, _: object, arguments: object, *__: object) -> object:
    """See `torch._tensor._rebuild_from_type_v2`: a tensor with attributes is a tensor."""
    known = isinstance(function, Global) and str(function).startswith("torch._utils._rebuild_")
    make = CONSTRUCTORS.get(str(function)) if known else None
    if make is None or not isinstance(arguments, tuple):
        return OpaqueObject(str(function) if isinstance(function, Global) else "an object")
    return make(*arguments)


def _dict(items: object = (), *_: object) -> dict[Any, Any]:
    """See `collections.OrderedDict`: old versions give it a list of pairs."""
    given = items if isinstance(items, list | tuple) else ()
    return pairs((pair[0], pair[1]) for pair in given if isinstance(pair, list | tuple) and len(pair) == 2)


CONSTRUCTORS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": _dict,
    "torch.Size": _first,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_type,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": _of_subclass,
}
