"""Check that a function of the pipeline gives the same beside itself: several threads score, and call it at once.

A function that keeps its results in an array, a frame or a list of its module gives rows of one thread the values of
another's. Two threads show that now and then; here it is certain: before each line of the function's module, another
thread calls the function for other rows.
"""

import concurrent.futures
import contextlib
import inspect
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")

PATIENCE = 1.0
"""Seconds that the other thread's call may take; a function with a lock of its own makes it wait, and is sound."""


def interrupted(function: Callable[..., object], call: Callable[[], Result], other: Callable[[], object]) -> Result:
    """The result of a call, with another one before each line.

    Args:
        function: whose module's lines count; each the first time that it runs.
        call: calls it.
        other: calls it as well, for other rows; in a thread of its own.
    """
    module = getattr(inspect.unwrap(function), "__code__", None)
    seen: set[tuple[object, int]] = set()
    is_waiting = False

    def at_line(frame: FrameType, event: str, _value: Any) -> Callable[..., Any] | None:  # noqa: ANN401
        nonlocal is_waiting
        place = frame.f_code, frame.f_lineno
        if event == "line" and place not in seen and not is_waiting:
            seen.add(place)
            is_waiting = bool(concurrent.futures.wait([pool.submit(_quietly, other)], PATIENCE).not_done)
        return at_line

    def at_call(frame: FrameType, _event: str, _value: Any) -> Callable[..., Any] | None:  # noqa: ANN401
        return at_line if module and frame.f_code.co_filename == module.co_filename else None

    before = sys.gettrace()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sys.settrace(at_call)
        try:
            return call()
        finally:
            sys.settrace(before)


def _quietly(other: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):  # it shows in the result of the first call, if at all
        other()
