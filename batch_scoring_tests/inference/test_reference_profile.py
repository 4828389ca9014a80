"""A reference profile says how many false alarms to expect, and is read back as it was written."""

import pytest
from pydantic import ValidationError

from batch_scoring.inference.reference_profile import ColumnProfile, Held, ReferenceProfile
from batch_scoring_tests.checked import profile


def test_whole_days_held_out_and_shares_say_how_many_alarms_a_month() -> None:
    whole = Held(rows="whole", days=91, columns=0.003, any_column=0.02, alarms=0.01)
    few = Held(rows="30", days=273, columns=0.01, any_column=0.1, alarms=0.5)
    assert profile(held_out=(few, whole), share_alarms=0.02).alarms_a_month == pytest.approx(0.03 * 365.25 / 12)
    assert profile(held_out=(few,)).alarms_a_month == 0.0


def test_a_profile_is_read_back_as_it_was_written() -> None:
    column = ColumnProfile(kind="numeric", grain="row", day=0.1, sampling=2.0, trailing=None, missing=0.0)
    written = profile(columns={"x": column})
    assert ReferenceProfile.model_validate_json(written.model_dump_json()) == written
    assert column.repeated == 1.0, "a profile of before has no such figure: not tested"


@pytest.mark.parametrize("changes", [{"factor": float("nan")}, {"format": 2}, {"more": 1}])
def test_what_is_no_figure_of_a_profile_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        profile(**changes)
