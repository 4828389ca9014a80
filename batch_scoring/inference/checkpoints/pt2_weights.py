"""Weights in a `.pt2` archive of `torch.export.save`, without `torch.export.load`, which unpickles parts of it.

The weights themselves are plain bytes, described by a JSON file; the graph beside them is not used.
"""

import json
from typing import TYPE_CHECKING, Any

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.checkpoints.archives import Archive
from batch_scoring.inference.checkpoints.stored import Content, OpaqueObject, Storage, StoredTensor

if TYPE_CHECKING:
    import torch

FORMAT = "archive_format"
_LONGEST = 64 * 2**20
"""Bytes of a description; that of ten thousand weights has four millions."""
_FOLDER, _DESCRIPTION = "data/weights/", "_weights_config.json"


def read(archive: Archive) -> Content:
    """Describe the weights of the archive's program, or of each by its name if it has several.

    Raises:
        UnsoundError: it is damaged, or has no weights.
    """
    descriptions = [name for name in archive.names if name.startswith(_FOLDER) and name.endswith(_DESCRIPTION)]
    if not descriptions:
        raise UnsoundError("it is a .pt2 archive without weights; expected one that torch.export.save wrote")
    programs = {name[len(_FOLDER) : -len(_DESCRIPTION)]: _weights(archive, name) for name in descriptions}
    return Content(programs.popitem()[1] if len(programs) == 1 else programs)


def _weights(archive: Archive, description: str) -> dict[str, StoredTensor | OpaqueObject]:
    payloads: dict[str, dict[str, Any]] = json.loads(archive.read(description, _LONGEST))["config"]
    storages: dict[str, Storage] = {}
    return {name: _weight(archive, payload, storages) for name, payload in payloads.items()}


def _weight(archive: Archive, payload: dict[str, Any], storages: dict[str, Storage]) -> StoredTensor | OpaqueObject:
    if payload["use_pickle"]:
        return OpaqueObject("pickle")
    record, tensor = _FOLDER + payload["path_name"], payload["tensor_meta"]
    if record not in storages:
        storages[record] = archive.storage(record)
    shape, stride = (tuple(number.get("as_int") for number in tensor[name]) for name in ("sizes", "strides"))
    return storages[record].tensor(_dtype(tensor["dtype"]), tensor["storage_offset"]["as_int"], shape, stride)


def _dtype(number: object) -> "torch.dtype":
    """See `ScalarType` in `torch/_export/serde/schema.py`."""
    import torch

    types = {
        1: torch.uint8,
        2: torch.int8,
        3: torch.int16,
        4: torch.int32,
        5: torch.int64,
        6: torch.float16,
        7: torch.float32,
        8: torch.float64,
        12: torch.bool,
        13: torch.bfloat16,
    }
    if not isinstance(number, int) or number not in types:
        raise UnsoundError("a tensor of a type that is not read; expected numbers of at most 64 bits, or bools")
    return types[number]
