import threading

import pytest

from batch_scoring.runtime.timeouts import answer


def test_a_store_that_hangs_is_asked_one_question_and_the_others_answer() -> None:
    release = threading.Event()
    try:
        with pytest.raises(TimeoutError, match=r"did not answer within 0\.05 seconds"):
            answer("hanging", 0.05, release.wait)
        for _ in range(20):
            with pytest.raises(TimeoutError, match="has not answered an earlier question"):
                answer("hanging", 0.05, lambda: True)
            assert answer("sound", 5, lambda: "here") == "here"
    finally:
        release.set()


def test_what_the_question_raises_is_raised() -> None:
    def ask() -> None:
        raise TimeoutError("the store's own words")

    with pytest.raises(TimeoutError, match="own words"):
        answer("raising", 5, ask)
