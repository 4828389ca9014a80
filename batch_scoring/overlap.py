"""Work beside other work: an iterator that is read ahead, a consumer that is written behind.

One thread each, and a bound on what waits between them. Arrow, numpy and torch let other threads run while they
compute, so reading, judging or scoring, and writing keep several cores busy without a process more. For a single item
there is nothing to run beside, and handing it over costs milliseconds.
"""

import collections
import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


@contextlib.contextmanager
def read_ahead(items: Iterable[Item], depth: int = 1) -> Iterator[Iterator[Item]]:
    """Iterate in a thread of its own, `depth` items ahead and one in hand. An error there is raised here, in its place.

    Args:
        items: what to iterate; a generator is closed at the end, in its thread.
        depth: items that wait; a second one gains nothing and costs its memory. 0: without a thread.
    """
    if not depth:
        yield iter(items)
        return
    ready: queue.Queue[Item | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def offer(item: Item | BaseException | None) -> bool:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    def read() -> None:
        try:
            if all(map(offer, items)):
                offer(None)
        except BaseException as error:
            offer(error)
        finally:
            if isinstance(items, Generator):  # what it holds open, also another thread, ends with this one
                items.close()

    def take() -> Iterator[Item]:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    reader = threading.Thread(target=read, name="reader", daemon=True)
    reader.start()
    try:
        yield take()
    finally:
        stopped.set()
        reader.join()


@contextlib.contextmanager
def write_behind(write: Callable[[Item], object], depth: int = 1) -> Iterator[Callable[[Item], object]]:
    """Call `write` for one item after the other in a thread of its own; all is written when the block ends.

    An error there is raised by the next call or at the end of the block, and nothing more is written. If the block
    itself fails, what waits is dropped.

    Args:
        write: takes an item.
        depth: items that wait, beside the one that is written. 0: without a thread.
    """
    if not depth:
        yield write
        return
    pending: collections.deque[Future[object]] = collections.deque()

    def put(item: Item) -> None:
        if len(pending) > depth:
            pending.popleft().result()
        pending.append(pool.submit(write, item))

    with ThreadPoolExecutor(1, "writer") as pool:
        try:
            yield put
            while pending:
                pending.popleft().result()
        finally:
            for waiting in pending:
                waiting.cancel()
