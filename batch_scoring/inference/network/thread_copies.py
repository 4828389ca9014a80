"""A copy of the network for every scoring thread: state that `forward()` stores stays with its thread.

Many networks store what they compute on themselves (`self.hidden = …`, a buffer as scratch space, what a hook has
seen) and read it again a line later. With two threads in one network, one thread reads what the other has stored, and
the scores are silently another row's. So no two forward passes share a network: they share its parameters, which
scoring never changes, and nothing else.
"""

import contextlib
import copy
import queue
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from batch_scoring.errors import is_out_of_memory
from batch_scoring.inference.network.packed_linear import ProbeRows


class ThreadCopies:
    """One equal network per concurrent forward pass; a single shared one, used in turn, if no copy is equal."""

    def __init__(self, network: nn.Module, probes: Iterable[ProbeRows]) -> None:
        """Take a network.

        Args:
            network: in evaluation mode; run by nothing else.
            probes: rows on the network's device; the first of them proves that a copy is equal.
        """
        self._idle: queue.LifoQueue[nn.Module] = queue.LifoQueue()
        self._idle.put(network)
        self._original = _proven_copy(network, probes)

    @property
    def are_equal(self) -> bool:
        """Whether there may be more than one."""
        return self._original is not None

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[nn.Module]:
        """Borrow a network that no other thread runs meanwhile."""
        network = self._take()
        try:
            yield network
        finally:
            self._idle.put(network)

    def _take(self) -> nn.Module:
        if self._original is None:
            return self._idle.get()
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return _copy(self._original)  # the original is never run, so nothing in it changes while it is copied


def _copy(network: nn.Module) -> nn.Module:
    """A copy that shares the parameters, and tensors computed from them."""
    kept = [value for module in network.modules() for value in vars(module).values() if isinstance(value, torch.Tensor)]
    shared = [*network.parameters(), *(value for value in kept if not value.is_leaf)]
    return copy.deepcopy(network, {id(value): value for value in shared})


def _proven_copy(network: nn.Module, probes: Iterable[ProbeRows]) -> nn.Module | None:
    """A copy, if it gives the network's exact outputs: a hook may write into the network that it was registered on."""
    try:
        probe = next(iter(probes))
        inputs = [values.flip(0) for values in probe.inputs]  # other rows than the network last saw
        duplicate = _copy(network)
        with torch.inference_mode():
            found = _copy(duplicate)(*(values.clone() for values in inputs))
            expected = network(*(values.clone() for values in inputs))
        return duplicate if torch.equal(found.nan_to_num(), expected.nan_to_num()) else None
    except Exception as error:  # it cannot be copied, raises for the rows, or there are none
        if is_out_of_memory(error):
            raise
        return None
