"""Tests of readings that may hang or fail."""

import threading
import time
from collections.abc import Iterator

from batch_scoring.metrics.background_read import BackgroundRead


def soon() -> float:
    return time.monotonic() + 10


def test_each_question_reads_anew() -> None:
    numbers = iter(range(5))
    read = BackgroundRead("numbers", lambda: next(numbers))
    assert [read.latest(soon()).content for _ in range(3)] == [0, 1, 2]
    assert read.latest(soon()).is_fresh


def test_what_was_read_last_stands_while_the_source_hangs_and_is_replaced_once_it_answers() -> None:
    hangs, go_on = threading.Event(), threading.Event()

    def source() -> Iterator[str]:
        yield "first"
        hangs.set()
        assert go_on.wait(60)
        yield "second"
        yield "third"

    parts = source()
    read = BackgroundRead("source", lambda: next(parts))
    first = read.latest(soon())
    assert (first.content, first.is_fresh, first.error) == ("first", True, "")
    began = time.monotonic()
    for _ in range(3):
        stale = read.latest(time.monotonic() + 0.05)
        assert (stale.content, stale.is_fresh, stale.error) == ("first", False, "it has not answered yet")
        assert stale.at == first.at
    assert time.monotonic() - began < 5
    assert hangs.is_set()
    assert sum(thread.name == "source" for thread in threading.enumerate()) == 1, "one reading at a time"
    go_on.set()
    assert read.latest(soon()).content in ("second", "third")
    assert read.latest(soon()).is_fresh


def test_an_error_is_told_and_the_next_question_asks_again() -> None:
    answers: list[str | Exception] = ["a", TimeoutError("the\nstore is slow"), "b"]

    def source() -> str:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    read = BackgroundRead("source", source)
    assert read.latest(soon()).content == "a"
    stale = read.latest(soon())
    assert (stale.content, stale.is_fresh, stale.error) == ("a", False, "TimeoutError: the store is slow")
    assert read.latest(soon()).content == "b"


def test_without_any_success_there_is_no_content() -> None:
    read: BackgroundRead[int] = BackgroundRead("source", lambda: 1 // 0)
    assert (read.latest(soon()).content, read.latest(soon()).is_fresh) == (None, False)


def test_questions_at_once_share_a_reading() -> None:
    counted: list[float] = []

    def source() -> int:
        counted.append(time.monotonic())
        time.sleep(0.3)
        return len(counted)

    read = BackgroundRead("source", source)
    read.begin()
    threads = [threading.Thread(target=read.latest, args=(soon(),)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counted) == 1
