"""Signal handling of a command: Ctrl-C, SIGTERM and SIGHUP.

Python runs a signal handler in the main thread, between two instructions. An exception raised there during an import
leaves a half-loaded module behind, and Dagster replaces handlers with raising ones during a run. So the handlers of a
command do nothing and cannot be replaced, and a thread of its own receives the signal. Work then ends as with
`kill -9`, which the storage tolerates at any time; final actions and messages are registered here beforehand.

Steps that Dagster launches are interrupted by Dagster; see `failed_runs.INTERRUPTED`.
"""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 4.0
"""Seconds that the final actions may take."""

Act = Callable[[], str | None]
"""Final action before the process ends, in its own thread; returns a message for the user, if any."""

_acts: list[Act] = []
_ending = threading.Event()
_uninterrupted = threading.RLock()
_said = threading.Lock()


def watch(program: str) -> None:
    """End this process on a signal, with exit code 128 plus its number; ignored signals stay ignored.

    Call it before other threads are started and before slow imports; signals blocked until then (`early_signals.py`)
    are handled now.

    Args:
        program: name at the start of the final message.
    """
    wakeup, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    numbers = {number for number in NUMBERS if signal.getsignal(number) != signal.SIG_IGN}
    for number in numbers:
        signal.signal(number, lambda *_: None)
    _keep_handlers(numbers)
    # a terminal signals all of its processes: our children must not print tracebacks of their own
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # during a step Dagster redirects descriptor 2 to a file
    threading.Thread(target=_wait, args=(program, wakeup, numbers, os.dup(2)), name="signals", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGHUP})


@contextlib.contextmanager
def at_end(act: Act) -> Iterator[None]:
    """Register a final action for the duration of the block; of nested blocks, the inner one's runs first.

    The innermost message is printed. Once the process is ending, no such block is entered or left any more.
    """
    wait_if_ending()
    _acts.append(act)
    try:
        yield
    finally:
        wait_if_ending()
        _acts.remove(act)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Defer signals to the end of the block, which must run as a whole."""
    with _uninterrupted:
        yield


def wait_if_ending() -> None:
    """Block for ever if the process is ending, so that nothing new begins."""
    if _ending.is_set():
        threading.Event().wait()


def _keep_handlers(numbers: set[signal.Signals]) -> None:
    """Ignore attempts to replace the handlers; those of Dagster raise."""
    original = signal.signal

    def keep(number: int, handler: Any) -> Any:  # noqa: ANN401  (the standard library's own types)
        return signal.getsignal(number) if number in numbers else original(number, handler)

    signal.signal = keep  # type: ignore[assignment]


def _wait(program: str, wakeup: int, numbers: set[signal.Signals], terminal: int) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    number = _next_signal(wakeup, numbers)
    while not _uninterrupted.acquire(blocking=False):  # never released: no further block begins
        number = _next_signal(wakeup, numbers)
    _ending.set()
    threading.Thread(target=_end, args=(program, number, terminal), daemon=True).start()
    select.select([wakeup], [], [], GRACE)  # a second signal ends the process at once
    _leave(program, number, terminal, "")


def _next_signal(wakeup: int, numbers: set[signal.Signals]) -> int:
    """Wait for the next of these signals."""
    while (number := os.read(wakeup, 1)[0]) not in numbers:
        pass
    return number


def _end(program: str, number: int, terminal: int) -> None:
    """Run the final actions, then end the process."""
    words = ""
    for act in reversed(_acts[:]):
        with contextlib.suppress(Exception):  # one action may fail; the others still run
            said = act()
            words = words or said or ""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    _leave(program, number, terminal, words)


def _leave(program: str, number: int, terminal: int, words: str) -> None:
    _said.acquire()  # never released: the message is printed once
    for child in _children():
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)
    start = "\r" if os.isatty(terminal) else ""  # over the ^C of the terminal
    with contextlib.suppress(OSError):
        os.write(terminal, f"{start}{program}: interrupted{f'; {words}' if words else ''}\n".encode())
    os._exit(128 + number)


def _children() -> list[int]:
    """Child processes: those of Dagster that copy a step's output, and the sender of alerts."""
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208  (pathlib takes long to import, for a command's start)
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children") as file:  # noqa: PTH123
            found += map(int, file.read().split())
    return found
