"""How a command ends when it is told to: by Ctrl-C, by SIGTERM, or because its terminal goes away.

Python runs the handler of a signal in the main thread, between two instructions of whatever is at work there. What it
raises in the middle of an import leaves half a module behind, and Dagster puts handlers that raise in the place of
others while a run is on. So handlers of a command do nothing and stay, and a thread hears of the signal, whatever the
main thread is doing. Work ends as `kill -9` would end it, which storage bears at every moment; what is to be done and
said before that, the work registers here.

Steps that Dagster launches are told to end by Dagster, which knows what to do; see `failures.INTERRUPTED`.
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
"""Seconds that the last acts may take."""

Act = Callable[[], str | None]
"""Done before the process ends, in a thread of its own; what people should be told, if there is something."""

_acts: list[Act] = []
_ending = threading.Event()
_uninterrupted = threading.RLock()
_said = threading.Lock()


def watch(program: str) -> None:
    """From here on let a signal end this process with 128 and its number; one that is ignored goes on being so.

    Call it before other threads are started, and before anything that takes time is imported; what was held until then
    (`first.py`) is heard of now.

    Args:
        program: begins the line that says so.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    numbers = {number for number in NUMBERS if signal.getsignal(number) != signal.SIG_IGN}
    for number in numbers:
        signal.signal(number, lambda *_: None)
    _keep_handlers(numbers)
    # a terminal tells all of its processes: those that we start are not to die of it with a traceback of their own
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # while a step is on Dagster lets 2 be a file
    threading.Thread(target=_wait, args=(program, told, numbers, os.dup(2)), name="signals", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGHUP})


@contextlib.contextmanager
def at_end(act: Act) -> Iterator[None]:
    """Do something if the process is told to end within the block; of several blocks the inner one's first.

    Of what they say the innermost is told. Once the end has come, no such block is begun or left any more.
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
    """Let signals come too late for as long as the block lasts: what is done in here belongs together."""
    with _uninterrupted:
        yield


def wait_if_ending() -> None:
    """Begin nothing more if the end has come."""
    if _ending.is_set():
        threading.Event().wait()


def _keep_handlers(numbers: set[signal.Signals]) -> None:
    """Let nobody set other handlers; Dagster's raise."""
    original = signal.signal

    def keep(number: int, handler: Any) -> Any:  # noqa: ANN401  (the standard library's own types)
        return signal.getsignal(number) if number in numbers else original(number, handler)

    signal.signal = keep  # type: ignore[assignment]


def _wait(program: str, told: int, numbers: set[signal.Signals], terminal: int) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    number = _heard(told, numbers)
    while not _uninterrupted.acquire(blocking=False):  # kept to the end: nothing that belongs together begins
        number = _heard(told, numbers)
    _ending.set()
    threading.Thread(target=_end, args=(program, number, terminal), daemon=True).start()
    select.select([told], [], [], GRACE)  # a second one means: now
    _leave(program, number, terminal, "")


def _heard(told: int, numbers: set[signal.Signals]) -> int:
    """The next signal that is one of them."""
    while (number := os.read(told, 1)[0]) not in numbers:
        pass
    return number


def _end(program: str, number: int, terminal: int) -> None:
    """Do what is registered, and end."""
    words = ""
    for act in reversed(_acts[:]):
        with contextlib.suppress(Exception):  # of one act; the others are done all the same
            said = act()
            words = words or said or ""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    _leave(program, number, terminal, words)


def _leave(program: str, number: int, terminal: int, words: str) -> None:
    _said.acquire()  # for ever: one line is enough
    for child in _children():
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)
    start = "\r" if os.isatty(terminal) else ""  # over the ^C of the terminal
    with contextlib.suppress(OSError):
        os.write(terminal, f"{start}{program}: interrupted{f'; {words}' if words else ''}\n".encode())
    os._exit(128 + number)


def _children() -> list[int]:
    """The processes that this one has started: Dagster's, which copy the output of a step; what sends alerts."""
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208  (pathlib takes long to import, for a command's start)
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children") as file:  # noqa: PTH123
            found += map(int, file.read().split())
    return found
