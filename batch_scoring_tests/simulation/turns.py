"""Processes that take turns: each runs until it reaches an operation, where it may lose its turn, fail or die.

Everything is determined by one seeded generator, so a history can be replayed from its seed. What operations there are,
how often they fail and what else may happen, the worlds themselves say: `world.py` of runs, `exports.py` of exports.
"""

import contextlib
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Literal, TypeVar

Result = TypeVar("Result")
Errors = tuple[type[Exception], ...]
Fault = Literal["", "dies before", "dies after", "no answer", "answer lost"]

DEATHS: tuple[Fault, ...] = ("dies before", "dies after")
FAULTS: tuple[Fault, ...] = (*DEATHS, "no answer", "answer lost")
"""What may become of an operation: before it takes effect, or after."""


class Crash(BaseException):
    """The process is dead: no handler of `Exception` runs on."""


class Process:
    """A process that takes turns with others."""

    def __init__(self, turns: "Turns[Any]", name: str, work: Callable[[Any], None]) -> None:
        """`work`: what it does; gets the process."""
        self.name, self.work = name, work
        self.is_dead = False
        self.turn = threading.Lock()
        self.turn.acquire()
        self.thread = threading.Thread(target=self._run, args=(turns,), daemon=True)

    def _run(self, turns: "Turns[Any]") -> None:
        self.turn.acquire()
        try:
            self.work(self)
        except Crash:
            pass
        except BaseException as error:
            turns.note(f"{self.name} fails: {type(error).__name__}: {str(error)[:160]}")
            if not turns.is_honest(error):
                turns.violate(f"{type(error).__name__}: {error}")
        turns.ended(self)


AnyProcess = TypeVar("AnyProcess", bound=Process)


class Turns(ABC, Generic[AnyProcess]):
    """A history of processes."""

    def __init__(self, seed: int, honest_errors: Errors, *, faults: int, events: int) -> None:
        """Begin a history.

        Args:
            seed: determines everything.
            honest_errors: what a process may end with; anything else is a fault of the protocol.
            faults: how many operations may fail.
            events: how many times something else may happen.
        """
        self.random = random.Random(seed)
        self.honest_errors = honest_errors
        self.faults_left, self.events_left = faults, events
        self.is_calm = False
        """Whether nothing fails or happens any more."""
        self.trace: list[str] = []
        self.violation = ""
        self.running: AnyProcess | None = None
        """The process whose turn it is."""
        self._is_quiet = False  # an operation takes effect, or somebody else acts: what that does is no operation
        self._ready: list[AnyProcess] = []
        self._main = threading.Lock()
        self._main.acquire()

    # what a world says itself

    @abstractmethod
    def happen(self) -> None:
        """Something else happens."""

    @abstractmethod
    def _may_lose_its_turn(self, process: AnyProcess, what: str) -> None:
        """Let another process go on, or something happen."""

    @abstractmethod
    def _fault(self, what: str, errors: Errors) -> Fault:
        """What is to become of an operation; empty: it succeeds."""

    def _error(self, errors: Errors) -> type[Exception]:
        """With what an operation fails."""
        return errors[0]

    def is_honest(self, error: BaseException) -> bool:
        """Whether a process may end with an error."""
        return isinstance(error, self.honest_errors)

    # what is told

    def note(self, text: str) -> None:
        """Add a line to the history."""
        self.trace.append(text)

    def violate(self, text: str) -> None:
        """A promise is broken: every process ends at its next operation."""
        if not self.violation:
            self.violation = text
            self.note(f"VIOLATION {text}")

    # turns

    def together(self, processes: Iterable[AnyProcess]) -> None:
        """Let processes run, taking turns at operations, until all have ended."""
        self._ready = list(processes)
        if self._ready:
            for process in self._ready:
                process.thread.start()
            self._wake(self.random.choice(self._ready))
            self._main.acquire()
        self.running = None

    def join(self, process: AnyProcess) -> None:
        """Let a process begin while others are on."""
        self._ready.append(process)
        process.thread.start()

    def ended(self, process: AnyProcess) -> None:
        """A process is over; somebody else goes on."""
        self._ready.remove(process)
        if self._ready:
            self._wake(self.random.choice(self._ready))
        else:
            self._main.release()

    def operation(self, what: str, effect: Callable[[], Result], errors: Errors = (OSError,)) -> Result:
        """An operation of the process whose turn it is: it may be the last that it does."""
        process = self.running
        if process is None or self._is_quiet:
            return effect()
        self._may_lose_its_turn(process, what)
        fault = self._fault(what, errors)
        if fault:
            self.faults_left -= 1
            self.note(f"{process.name}: {what}: {fault}")
        if fault == "dies before":
            self._die(process)
        if fault == "no answer":
            raise self._error(errors)(f"{what}: no answer")
        with self.quietly():
            result = effect()
        self._go_on(process)
        if fault == "dies after":
            self._die(process)
        if fault == "answer lost":
            raise self._error(errors)(f"{what}: the answer was lost")
        return result

    @contextlib.contextmanager
    def quietly(self) -> Iterator[None]:
        """What happens inside is no operation of a process."""
        before, self._is_quiet = self._is_quiet, True
        try:
            yield
        finally:
            self._is_quiet = before

    def _wake(self, process: AnyProcess) -> None:
        self.running = process
        process.turn.release()

    def _may_happen(self, process: AnyProcess, chance: float) -> bool:
        """Let something else happen, by chance; whether it did."""
        if self.is_calm or not self.events_left or self.random.random() >= chance:
            return False
        self.events_left -= 1
        with self.quietly():
            self.happen()
        self._go_on(process)
        return True

    def _may_give_way(self, process: AnyProcess, chance: float) -> None:
        if self.random.random() < chance:
            self._give_way(process)

    def _give_way(self, process: AnyProcess) -> None:
        other = self.random.choice(self._ready)
        if other is not process:
            self._wake(other)
            process.turn.acquire()
            self._go_on(process)

    def _go_on(self, process: AnyProcess) -> None:
        """Go on only if the process lives and every promise is kept.

        Raises:
            Crash: otherwise.
        """
        if process.is_dead or self.violation:
            raise Crash

    def _die(self, process: AnyProcess) -> None:
        process.is_dead = True
        raise Crash
