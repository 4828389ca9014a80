import contextlib
import gc
import itertools
import os
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_scoring.runtime import parallel
from batch_scoring.runtime.parallel import in_order


def numbers(count: int, seen: list[int]) -> Iterator[int]:
    for number in range(count):
        seen.append(number)
        yield number


def helpers_alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("helper")]


@settings(max_examples=40, deadline=None)
@given(naps=st.lists(st.sampled_from([0.0, 0.001, 0.004]), max_size=12), helpers=st.integers(0, 3), data=st.data())
def test_results_come_in_the_order_of_the_items_whoever_is_slow(
    naps: list[float], helpers: int, data: st.DataObject
) -> None:
    slow = data.draw(st.sampled_from(["reading", "work", "caller"]))

    def source() -> Iterator[int]:
        for number, nap in enumerate(naps):
            time.sleep(nap if slow == "reading" else 0)
            yield number

    def work(number: int) -> int:
        time.sleep(naps[number] if slow == "work" else 0)
        return number * number

    found = []
    for result in in_order(work, source(), helpers):
        time.sleep(naps[len(found)] if slow == "caller" else 0)
        found.append(result)
    assert found == [number * number for number in range(len(naps))]
    assert helpers_alive() == []


@pytest.mark.parametrize("helpers", [0, 1, 3])
def test_little_more_is_read_than_there_are_threads(helpers: int) -> None:
    seen: list[int] = []
    most = 0
    for taken, _ in enumerate(in_order(lambda number: number, numbers(60, seen), helpers)):
        time.sleep(0.002)
        most = max(most, len(seen) - taken - 1)
    assert len(seen) == 60
    assert most <= helpers + 3


def test_one_thread_reads_at_a_time_and_all_of_them_work() -> None:
    reading = threading.Lock()
    everyone = threading.Barrier(3, timeout=20)

    def source() -> Iterator[int]:
        for number in range(30):
            assert reading.acquire(blocking=False)
            time.sleep(0.001)
            reading.release()
            yield number

    def work(number: int) -> int:
        if number < 3:
            everyone.wait()  # the caller and both helpers have an item each, or this breaks
        return number

    assert list(in_order(work, source(), 2)) == list(range(30))


def test_without_helpers_all_is_done_in_place() -> None:
    here = threading.get_ident()
    assert (
        list(in_order(lambda thread: (thread, threading.get_ident()), (threading.get_ident() for _ in "ab"), 0))
        == [(here, here)] * 2
    )


def test_helpers_are_prepared_before_they_work() -> None:
    prepared = [threading.get_ident()]
    found = in_order(lambda _: threading.get_ident() in prepared, range(50), 2, lambda: _note(prepared))
    assert all(found)


def _note(prepared: list[int]) -> None:
    time.sleep(0.01)
    prepared.append(threading.get_ident())


@pytest.mark.parametrize("helpers", [0, 1, 3])
@pytest.mark.parametrize("culprit", ["reading", "work"])
def test_an_error_is_raised_in_place_of_the_result(culprit: str, helpers: int) -> None:
    seen: list[int] = []

    def source() -> Iterator[int]:
        for number in numbers(1000, seen):
            if culprit == "reading" and number == 5:
                raise OSError("the disk is gone")
            yield number

    def work(number: int) -> int:
        if culprit == "work" and number == 5:
            raise OSError("the disk is gone")
        time.sleep(0.002 if number < 5 else 0)  # those before it end later
        return number

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        for result in in_order(work, source(), helpers):
            found.append(result)
    assert found == [0, 1, 2, 3, 4]
    assert len(seen) <= 6 + helpers + 3
    assert helpers_alive() == []


@pytest.mark.parametrize("helpers", [0, 2])
def test_a_line_that_is_left_early_closes_what_it_reads_and_its_threads_end(helpers: int) -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    source = endless()
    results = in_order(lambda number: number, source, helpers)
    assert next(results) == 1
    assert len(helpers_alive()) == helpers
    results.close()
    assert closed.is_set() and helpers_alive() == []


@pytest.mark.parametrize("helpers", [0, 1])
def test_an_error_that_is_handled_leaves_nothing_in_memory(helpers: int) -> None:
    class Item:
        pass

    held: list[weakref.ref[Item]] = []

    def source() -> Iterator[Item]:
        for _ in range(3):
            item = Item()
            held.append(weakref.ref(item))
            yield item
            del item

    def work(item: Item) -> Item:
        if len(held) > 1 and held[1]() is item:
            raise MemoryError
        return item

    gc.collect()
    gc.disable()  # what it would have to find may be frozen: garbage.py
    try:
        with contextlib.suppress(MemoryError):
            list(in_order(work, source(), helpers))
        assert [item() for item in held if item() is not None] == []
    finally:
        gc.enable()


def test_threads_that_could_be_started_end_when_another_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def may_start(thread: threading.Thread) -> None:
        if thread.name == "helper_1":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", may_start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(in_order(lambda number: number, itertools.count(), 3))
    assert helpers_alive() == []


def test_an_interrupt_of_the_caller_ends_the_threads() -> None:
    class Interrupt(BaseException):
        pass

    here = threading.get_ident()

    def work(number: int) -> int:
        if number > 3 and threading.get_ident() == here:
            raise Interrupt
        time.sleep(0.001)
        return number

    with pytest.raises(Interrupt):
        list(in_order(work, range(10_000), 1))
    assert helpers_alive() == []


@pytest.mark.parametrize(("asked", "cores"), [("", None), ("1", 1), ("10000", None), ("4,2", None), ("0", 1)])
def test_a_pod_that_shares_a_node_uses_its_own_cores(
    monkeypatch: pytest.MonkeyPatch, asked: str, cores: int | None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    here = cores or len(os.sched_getaffinity(0))
    assert parallel.cores() == here
    assert parallel.spare_cores() == max(here - 1, 1)
