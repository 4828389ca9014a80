"""The columns that decisions read."""

import pytest

from batch_scoring.config.delivery_spec import Decisions
from batch_scoring.delivery.decisions.reading import columns
from batch_scoring.errors import RuleError


def test_the_score_the_names_in_rules_and_the_columns_with_caps_are_read_once() -> None:
    call = {"where": "tier > 1 and age < 90", "most_per": {"region": 3, "tier": 1}}
    section = {"score": "prediction", "eligible": {"adult": "age >= 18"}, "actions": {"call": call, "email": {}}}

    assert columns(Decisions.model_validate(section)) == ("prediction", "age", "tier", "region")


def test_a_rule_that_is_none_is_named_with_its_place() -> None:
    section = {"eligible": {"adult": "age >="}, "actions": {"call": {}}}

    with pytest.raises(RuleError, match=r"decisions\.eligible\.adult"):
        columns(Decisions.model_validate(section))
