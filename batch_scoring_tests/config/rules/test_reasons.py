"""The vocabulary of reasons is finite, and as narrow as the spec allows."""

import pytest
from pydantic import ValidationError

from batch_scoring.config.delivery_spec import Decisions
from batch_scoring.config.rules.reasons import vocabulary


def reasons_of(**section: object) -> tuple[str, ...]:
    return vocabulary(Decisions.model_validate(section))


def test_a_bare_action_has_two_reasons() -> None:
    assert reasons_of(actions={"call": {}}) == ("call:taken", "call:below")


def test_every_setting_adds_its_reasons() -> None:
    call = {
        "where": "a > 1",
        "most": 3,
        "most_per": {"region": 1},
        "holdout": {"share": 0.1, "salt": "s"},
        "not_within_days": 1,
    }

    assert reasons_of(eligible={"adult": "age >= 18"}, actions={"call": call}) == (
        "ineligible:adult",
        "ineligible:adult:unknown",
        "call:taken",
        "call:holdout",
        "call:not_met",
        "call:not_met:unknown",
        "call:below",
        "call:recent",
        "call:over_cap_region",
        "call:over_cap",
    )


def test_a_function_names_its_own() -> None:
    assert reasons_of(actions={"call": {}}, function="rules:decide", reasons=("b", "a", "b")) == ("b", "a")


def test_an_action_is_not_called_like_the_beginning_of_other_reasons() -> None:
    with pytest.raises(ValidationError, match="an action is called ineligible"):
        reasons_of(actions={"ineligible": {}})
