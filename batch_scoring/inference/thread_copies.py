"""A network for every thread that scores: whatever a network keeps in `forward()` is that thread's alone.

Many networks store what they compute on themselves (`self.hidden = …`, a buffer as scratch space, what a hook has
seen) and read it again a line later. With two threads in one network, one reads what the other has stored, and the
scores are another row's without a word. So no two forward passes share a network: they share its parameters, which
scoring never changes, and nothing else.
"""

import contextlib
import copy
import queue
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from batch_scoring.errors import is_out_of_memory
from batch_scoring.inference.packed_linear import Probe


class Twins:
    """As many equal networks as there are forward passes at once; one, for one pass at a time, if it has no equal."""

    def __init__(self, network: nn.Module, probes: Iterable[Probe]) -> None:
        """Keep a network.

        Args:
            network: in evaluation mode; nobody else runs it.
            probes: rows on the network's device; on the first of them a twin proves that it is one.
        """
        self._idle: queue.LifoQueue[nn.Module] = queue.LifoQueue()
        self._idle.put(network)
        self._pattern = _proven_twin(network, probes)

    @property
    def are_equal(self) -> bool:
        """Whether there may be more than one."""
        return self._pattern is not None

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[nn.Module]:
        """A network that nobody else runs meanwhile."""
        network = self._take()
        try:
            yield network
        finally:
            self._idle.put(network)

    def _take(self) -> nn.Module:
        if self._pattern is None:
            return self._idle.get()
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return _twin(self._pattern)  # which is never run: nothing in it changes while it is copied


def _twin(network: nn.Module) -> nn.Module:
    """A copy that shares the parameters, and tensors that were computed from them."""
    kept = [value for module in network.modules() for value in vars(module).values() if isinstance(value, torch.Tensor)]
    shared = [*network.parameters(), *(value for value in kept if not value.is_leaf)]
    return copy.deepcopy(network, {id(value): value for value in shared})


def _proven_twin(network: nn.Module, probes: Iterable[Probe]) -> nn.Module | None:
    """A twin, if it gives the network's very outputs; a hook may still write into the network that it was made for."""
    try:
        probe = next(iter(probes))
        numeric, categorical = probe.numeric.flip(0), probe.categorical.flip(0)  # other rows than the network last saw
        twin = _twin(network)
        with torch.inference_mode():
            found = _twin(twin)(numeric.clone(), categorical.clone())
            expected = network(numeric.clone(), categorical.clone())
        return twin if torch.equal(found.nan_to_num(), expected.nan_to_num()) else None
    except Exception as error:  # it cannot be copied, raises for the rows, or there are none
        if is_out_of_memory(error):
            raise
        return None
