"""Recognition of files of weights by their first bytes, and their refusal in one line.

Read are files of `torch.save`, safetensors, and the weights of `.pt2` archives. TorchScript, and whatever else would
have to run code, is refused.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from batch_scoring.errors import CheckpointError, UnsoundError, is_out_of_memory
from batch_scoring.inference.acceptance.eager import summary
from batch_scoring.inference.checkpoints import archives, pickle_weights, pt2_weights
from batch_scoring.inference.checkpoints.archives import Archive
from batch_scoring.inference.checkpoints.stored import Content, StoredTensor
from batch_scoring.runtime.printable import one_line

_EXPECTED = "expected a whole file of torch.save, such as torch.save(network.state_dict(), file), or safetensors"

_TORCHSCRIPT = "constants.pkl"
"""A record of every TorchScript archive."""

_OTHERS = {
    b"\x80": "a pickle that torch.save did not write; it was not loaded",
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"{": "a JSON text",
    b"\x1f\x8b": "compressed by gzip",
}
"""Formats that are not read, by their first bytes."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Content]:
    """Open a file of weights; its tensors can be read as long as it is open. No code in it is run.

    Raises:
        CheckpointError: it cannot be read, is damaged, would run code, or is of another format.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    with file, contextlib.ExitStack() as stack:
        with refusing(path):
            content = _content(path, file, stack)
        yield content


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn whatever a malformed file makes a reader raise into a CheckpointError that names the file."""
    try:
        yield
    except CheckpointError:
        raise
    except UnsoundError as error:
        raise CheckpointError(one_line(f"{path}: {error}")) from error
    except Exception as error:  # parsers of damaged data raise whatever they meet
        if is_out_of_memory(error):
            raise
        reason = one_line(summary(error))[:200]
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({reason}); {_EXPECTED}") from error


def _content(path: Path, file: BinaryIO, stack: contextlib.ExitStack) -> Content:
    head = file.read(32)
    if head.startswith(archives.MAGIC):
        return _archived(Archive(file))
    if pickle_weights.is_legacy(head):
        return pickle_weights.read_legacy(file)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= file.seek(0, 2):
        return _safetensors(path, stack)
    found = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), "damaged or not a checkpoint")
    raise UnsoundError(f"it is {found}; {_EXPECTED}")


def _archived(archive: Archive) -> Content:
    if _TORCHSCRIPT in archive:
        raise UnsoundError(
            "it is a TorchScript archive, which holds code; expected a state dict: where it was made, "
            "torch.save(network.state_dict(), file)"
        )
    archive.check()
    if pt2_weights.FORMAT in archive:
        return pt2_weights.read(archive)
    if pickle_weights.CONTENT in archive:
        return pickle_weights.read_zip(archive)
    raise UnsoundError(f"it is a zip archive of another kind ({', '.join(archive.names[:3])[:200]} …); {_EXPECTED}")


def _safetensors(path: Path, stack: contextlib.ExitStack) -> Content:
    import safetensors

    file = stack.enter_context(safetensors.safe_open(path, framework="pt"))
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  (it is no dict)
    return Content({name: StoredTensor(shape, partial(file.get_tensor, name)) for name, shape in shapes.items()})
