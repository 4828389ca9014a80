import threading

import pytest

from batch_scoring.runtime.timeouts import call_within


def test_a_store_that_hangs_is_asked_one_question_and_the_others_answer() -> None:
    release = threading.Event()
    try:
        with pytest.raises(TimeoutError, match=r"did not answer within 0\.05 seconds"):
            call_within(0.05, "hanging", release.wait)
        for _ in range(20):
            with pytest.raises(TimeoutError, match="has not answered an earlier request"):
                call_within(0.05, "hanging", lambda: True)
            assert call_within(5, "sound", lambda: "here") == "here"
    finally:
        release.set()


def test_what_the_question_raises_is_raised() -> None:
    def ask() -> None:
        raise TimeoutError("the store's own words")

    with pytest.raises(TimeoutError, match="own words"):
        call_within(5, "raising", ask)
