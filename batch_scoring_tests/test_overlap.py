import threading
import time
from collections.abc import Iterator

import pytest

from batch_scoring.overlap import read_ahead, write_behind


def numbers(count: int, seen: list[int]) -> Iterator[int]:
    for number in range(count):
        seen.append(number)
        yield number


def test_items_come_in_order_and_no_more_than_the_depth_is_read_ahead() -> None:
    seen: list[int] = []
    with read_ahead(numbers(20, seen), depth=2) as items:
        for number in items:
            time.sleep(0.01)
            assert number == seen[number]
            assert len(seen) <= number + 1 + 2 + 1  # those that wait, and the one that is offered
    assert seen == list(range(20))


def test_an_error_of_the_reader_is_raised_in_its_place() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    taken = []
    with pytest.raises(OSError, match="the disk is gone"), read_ahead(failing()) as items:
        taken.extend(items)
    with read_ahead(failing()) as items:
        assert next(items) == 1


def test_a_reader_that_is_left_early_is_closed_and_its_thread_ends() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    with read_ahead(endless()) as items:
        next(items)
    assert closed.is_set()
    assert "reader" not in {thread.name for thread in threading.enumerate()}


def test_all_is_written_in_order_when_the_block_ends() -> None:
    written: list[int] = []

    def write(number: int) -> None:
        time.sleep(0.002)
        written.append(number)

    with write_behind(write) as put:
        for number in range(20):
            put(number)
            assert number - len(written) <= 2  # one that is written, one that waits
    assert written == list(range(20))


def test_without_a_depth_all_is_done_in_place() -> None:
    here, seen = threading.get_ident(), []
    with read_ahead((threading.get_ident() for _ in range(3)), 0) as items, write_behind(seen.append, 0) as put:
        for item in items:
            put((item, len(seen)))
    assert seen == [(here, 0), (here, 1), (here, 2)]


@pytest.mark.parametrize("last", [3, 50])
def test_an_error_of_the_writer_ends_the_block(last: int) -> None:
    written: list[int] = []

    def write(number: int) -> None:
        if number == 3:
            raise OSError("no space left")
        written.append(number)

    handed = []
    with pytest.raises(OSError, match="no space left"), write_behind(write) as put:
        for number in range(last + 1):
            handed.append(number)
            put(number)
    assert written[:3] == [0, 1, 2]
    assert len(handed) <= 6


def test_what_waits_is_dropped_when_the_block_fails() -> None:
    begun, go_on = threading.Event(), threading.Event()
    written: list[int] = []

    def write(number: int) -> None:
        begun.set()
        go_on.wait(5)
        written.append(number)

    def block() -> None:
        with write_behind(write) as put:
            put(1)
            put(2)
            begun.wait(5)
            threading.Timer(0.1, go_on.set).start()
            raise ValueError("the day stops")

    with pytest.raises(ValueError, match="the day stops"):
        block()
    assert written == [1]
