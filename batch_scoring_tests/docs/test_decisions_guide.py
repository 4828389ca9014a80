"""What the guide on decisions says about specs and reasons is so."""

import re

import yaml

from batch_scoring.config.delivery_spec import Decisions
from batch_scoring.config.loader import PROJECT
from batch_scoring.config.rules.reasons import vocabulary

GUIDE = (PROJECT / "docs/guides/decisions.md").read_text("utf-8")
SECTIONS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)]


def test_every_section_of_the_guide_is_valid() -> None:
    found = [Decisions.model_validate(section["decisions"]) for section in SECTIONS if "decisions" in section]

    assert [bool(decisions.function) for decisions in found] == [False, True]


def test_the_table_of_reasons_is_complete() -> None:
    call = {
        "where": "a > 1",
        "most": 1,
        "most_per": {"<column>": 1},
        "holdout": {"share": 0.1, "salt": "s"},
        "not_within_days": 1,
    }
    known = vocabulary(Decisions.model_validate({"eligible": {"rule": "a > 1"}, "actions": {"action": call}}))

    named = re.findall(r"^\| `(<action>:[^`]*|ineligible:[^`]*)` \|", GUIDE, re.MULTILINE)

    assert {name.replace("<action>", "action").replace("<rule>", "rule") for name in named} == set(known)
