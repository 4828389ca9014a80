"""Items that are worked on side by side, and come out in their order.

Arrow, numpy and torch let other threads run while they compute, so reading, judging or scoring, and writing keep
several cores busy without a process more.
"""

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    helpers: int = 1,
    prepare: Callable[[], object] = lambda: None,
) -> Generator[Result, None, None]:
    """Work on items side by side; the results come in the order of the items.

    Whoever is free reads the next item, one at a time, and works on it: a helper, or the caller's thread while the
    result that it asks for is not there yet. So there are no more threads than have work, an item is worked on where
    it was read (its bytes are in that core's cache), and a slow caller is at most `helpers` + 3 items behind. A
    thread for reading and one for each worker, which hand items on to each other, took a tenth longer on two cores.

    Args:
        work: what is done with an item, in any of the threads.
        items: what is read; a generator is closed at the end.
        helpers: threads beside the caller's. 0: all is done in place.
        prepare: is called in each helper first.

    Raises:
        Exception: of reading or of the work, in place of the result.
    """
    line = _Line(work, items, most=helpers + 3)

    def help_out() -> None:
        prepare()
        line.work_on()

    threads = [threading.Thread(target=help_out, name=f"helper_{n}", daemon=True) for n in range(helpers)]
    try:
        for thread in threads:
            thread.start()
        yield from line.results()
    finally:
        line.end()
        for thread in threads:
            if thread.ident is not None:  # it was started
                thread.join()
        if isinstance(items, Generator):
            items.close()


class _Line(Generic[Item, Result]):
    """Items from the one that is read next back to the one whose result is handed out next."""

    def __init__(self, work: Callable[[Item], Result], items: Iterable[Item], most: int) -> None:
        self._work, self._items, self._most = work, iter(items), most
        self._changed = threading.Condition()
        self._reading = self._ended = False
        self._read = self._taken = 0
        self._outcomes: dict[int, Future[Result]] = {}

    def work_on(self) -> None:
        """Take one item after the other, until there are no more."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._may_read())
                if self._ended:
                    return
                self._reading = True
            self._work_on_next()

    def results(self) -> Iterator[Result]:
        """Hand out the results; work as well when there is none to hand out."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._taken in self._outcomes or self._may_read() or self._is_over())
                outcome = self._outcomes.pop(self._taken, None)
                if outcome is None and self._is_over():
                    return
                if outcome is None:
                    self._reading = True
                else:
                    self._taken += 1
                    self._changed.notify_all()
            if outcome is None:
                self._work_on_next()
                continue
            try:
                yield outcome.result()
            finally:
                del outcome  # it holds an error, whose traceback holds this frame: all of it would stay in memory

    def end(self) -> None:
        """Read nothing more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _may_read(self) -> bool:
        return not (self._reading or self._ended) and self._read - self._taken < self._most

    def _is_over(self) -> bool:
        return self._ended and self._taken == self._read

    def _work_on_next(self) -> None:
        """Read an item, while nobody else does, and work on it."""
        number, outcome = self._read, Future[Result]()
        try:
            item = next(self._items)
        except StopIteration:
            self.end()
            return
        except BaseException as error:
            outcome.set_exception(error)
        with self._changed:
            self._read += 1
            self._reading = False
            self._changed.notify_all()
        if not outcome.done():
            try:
                outcome.set_result(self._work(item))
            except BaseException as error:
                outcome.set_exception(error)
        with self._changed:
            self._outcomes[number] = outcome
            self._changed.notify_all()
        del outcome  # as above


def cores() -> int:
    """The CPUs that this process may use; at most OMP_NUM_THREADS, which a pod has that shares a large node."""
    here, asked = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(here, int(asked))) if asked.isdecimal() else here


def spare_cores() -> int:
    """Helpers that keep all cores busy beside the caller; one at least, for whoever reads waits now and then."""
    return max(1, cores() - 1)
