"""A tolerance accepts something, and says what."""

import pytest
from pydantic import ValidationError

from batch_scoring.inference.heads.tolerance import OF_LOGITS, OF_VALUES, Tolerance


def test_a_tolerance_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="no other machine rounds exactly the same way"):
        Tolerance()


def test_a_tolerance_says_what_it_accepts() -> None:
    assert str(Tolerance(absolute=0.5, relative=1e-5)) == "0.5 + 1e-05 of the size"
    assert str(Tolerance(relative=0.01)) == "0.01 of the size"


def test_the_usual_tolerances_accept_rounding_alone() -> None:
    assert not OF_LOGITS.is_wide and not OF_VALUES.is_wide
    assert Tolerance(relative=1e-4).is_wide and Tolerance(absolute=1e-4).is_wide
