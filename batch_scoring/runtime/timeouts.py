"""Questions to a store that may hang: each has so long for its answer, and who hangs is asked no second one."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Answer = TypeVar("Answer")
_asked: dict[str, Future[Any]] = {}
"""The question of each asker that has no answer yet."""


def answer(asker: str, seconds: float, ask: Callable[[], Answer]) -> Answer:
    """What `ask` returns, or raises.

    Args:
        asker: who has one question at a time.
        seconds: how long to wait.
        ask: the question; goes on in its thread when the time is over, and its answer is dropped.

    Raises:
        TimeoutError: it took too long, or the question before it still does; an OSError, as a store's other troubles.
    """
    if (before := _asked.get(asker)) and not before.done():
        raise TimeoutError("the store has not answered an earlier question yet")
    thread = ThreadPoolExecutor(1, thread_name_prefix=asker)
    asked: Future[Answer] = thread.submit(ask)
    _asked[asker] = asked
    thread.shutdown(wait=False)
    try:
        return asked.result(seconds)
    except TimeoutError:
        if asked.done():  # its own words
            raise
        raise TimeoutError(f"the store did not answer within {seconds:g} seconds") from None
