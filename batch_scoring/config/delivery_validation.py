"""Errors of the section `decisions` that show before anything runs: rules that cannot be read, unknown columns.

Whether a column's type fits a rule, and whether the model has a score, shows when a day is decided.
"""

import re
from collections.abc import Iterator

from batch_scoring.config.delivery_spec import Decisions
from batch_scoring.config.expressions import Rule
from batch_scoring.config.spec import PipelineSpec
from batch_scoring.errors import RuleError

_SCORES = ("prediction", "prediction_proba", "prob_class_0", "prob_class_1")
_OTHERS = ("model_version", "scored_at", "source_file", "row_number")


def decision_errors(spec: PipelineSpec) -> Iterator[str]:
    """One line per wrong rule or column; `spec`: with its valid sections at least."""
    decisions, source, features = (getattr(spec, section, None) for section in ("decisions", "input", "features"))
    if not isinstance(decisions, Decisions) or source is None or features is None:
        return
    columns = (source.key, *features.names, *source.attributes, *_SCORES, *_OTHERS)
    for place, text in rules_of(decisions):
        try:
            rule = Rule.parse(text, place)
        except RuleError as error:
            yield str(error)
            continue
        classes = (name for name in rule.names if re.fullmatch(r"prob_class_\d+", name))  # the model's own affair
        if unknown := rule.unknown((*columns, *classes)):
            yield unknown
    for name, action in decisions.actions.items():
        for column in action.most_per:
            if column not in columns:
                yield (
                    f"decisions.actions.{name}.most_per.{column}: no column of the day; expected the key, a feature or "
                    "one of input.attributes"
                )


def rules_of(decisions: Decisions) -> Iterator[tuple[str, str]]:
    """The place and the text of every rule."""
    yield from ((f"decisions.eligible.{name}", text) for name, text in decisions.eligible.items())
    for name, action in decisions.actions.items():
        if action.where:
            yield f"decisions.actions.{name}.where", action.where
