"""Calls to a store with a timeout; while one hangs, its caller makes no further call."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")
_calls: dict[str, Future[Any]] = {}
"""The last call of each caller."""


def call_within(seconds: float, caller: str, call: Callable[[], Result]) -> Result:
    """Return what `call` returns, or raise what it raises.

    Args:
        seconds: how long to wait.
        caller: has one call at a time.
        call: continues in its thread after the timeout; its result is then discarded.

    Raises:
        TimeoutError: this call, or the one before it, takes too long; an OSError like other failures of a store.
    """
    if (before := _calls.get(caller)) and not before.done():
        raise TimeoutError("the store has not answered an earlier request yet")
    thread = ThreadPoolExecutor(1, thread_name_prefix=caller)
    running: Future[Result] = thread.submit(call)
    _calls[caller] = running
    thread.shutdown(wait=False)
    try:
        return running.result(seconds)
    except TimeoutError:
        if running.done():  # raised by the call itself
            raise
        raise TimeoutError(f"the store did not answer within {seconds:g} seconds") from None
