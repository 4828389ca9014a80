"""Mistakes in decisions that show before anything runs, each with its place."""

import pytest

from batch_scoring_tests.decided import RULES, changed, with_decisions
from batch_scoring_tests.specs import errors_in, put
from batch_scoring_tests.tiny import TinyProject


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        ({**RULES, "eligible": {"adult": "age >= 18"}}, "decisions.eligible.adult: 'age >= 18' mentions age, w"),
        (
            {**RULES, "eligible": {"far": "regon == 'x'"}},
            "decisions.eligible.far: \"regon == 'x'\" mentions regon, which",
        ),
        (changed("call", where="x >"), "decisions.actions.call.where: 'x >' is not a rule"),
        (
            changed("email", most_per={"branch": 3}),
            "decisions.actions.email.most_per.branch: no column of the day; exp",
        ),
        (
            changed("call", at_leest=3),
            "decisions.actions.call.at_leest: unknown field; accepted here: at_least, where, ",
        ),
        (
            changed("call", holdout={"share": 0.1}),
            "decisions.actions.call.holdout.salt: missing; expected text that is",
        ),
        ({**RULES, "actions": {"none": {}}}, "decisions: an action is called none, which means that a r"),
        (
            {"function": "rules:decide", "reasons": ["a"], "actions": {"call": {}}},
            "decisions.function: 'rules:decide': there is no rules.py beside the spec",
        ),
        (
            {"function": "network:decide", "reasons": ["a"], "actions": {"call": {}}},
            "decisions.function: 'network:decide': network.py defines no function decide; its functions: none",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(tiny: TinyProject, rules: dict[str, object], fault: str) -> None:
    with_decisions(tiny)
    [found] = errors_in(tiny, put("decisions", value=rules))
    assert found.startswith(fault)


def test_scores_of_any_model_may_be_in_a_rule(tiny: TinyProject) -> None:
    rules = {
        "eligible": {"sure": "prob_class_2 < 0.5 and prediction == 1 and x > 0 and id != ''"},
        "actions": {"a": {}},
    }
    assert with_decisions(tiny, rules).pipeline.spec.decisions is not None


def test_an_unknown_field_of_an_export_is_told_with_those_of_its_kind(tiny: TinyProject) -> None:
    [found] = errors_in(tiny, put("exports", value={"calls": {"to": "file", "path": "a_{day}.csv", "pth": "x"}}))
    assert found.startswith("exports.calls.pth: unknown field; accepted here: of, where, order, most, columns")
