"""The reasons of decisions: a finite vocabulary that follows from the spec.

Every row of a day has exactly one of them, whether it gets an action or not.
"""

from batch_scoring.config.delivery_spec import INELIGIBLE, Action, Decisions


def ineligible(rule: str, *, unknown: bool = False) -> str:
    """The reason of a row that does not satisfy a rule of `eligible`. `unknown`: because a value is missing."""
    return f"{INELIGIBLE}:{rule}:unknown" if unknown else f"{INELIGIBLE}:{rule}"


def taken(action: str) -> str:
    """The reason of a row that gets the action."""
    return f"{action}:taken"


def holdout(action: str) -> str:
    """The reason of a row in the action's control group."""
    return f"{action}:holdout"


def not_met(action: str, *, unknown: bool = False) -> str:
    """The reason of a row that does not satisfy the action's `where`. `unknown`: because a value is missing."""
    return f"{action}:not_met:unknown" if unknown else f"{action}:not_met"


def below(action: str) -> str:
    """The reason of a row whose score is missing or below the action's threshold."""
    return f"{action}:below"


def recent(action: str) -> str:
    """The reason of a row whose key had the action in the days before."""
    return f"{action}:recent"


def over_cap(action: str, column: str = "") -> str:
    """The reason of a row beyond the action's cap; `column`: beyond that of its group."""
    return f"{action}:over_cap_{column}" if column else f"{action}:over_cap"


def vocabulary(decisions: Decisions) -> tuple[str, ...]:
    """All reasons that the spec's decisions may have, in a fixed order."""
    if decisions.function:
        return tuple(dict.fromkeys(decisions.reasons))
    rules = [ineligible(rule, unknown=unknown) for rule in decisions.eligible for unknown in (False, True)]
    return (*rules, *(reason for name, action in decisions.actions.items() for reason in _of(name, action)))


def _of(name: str, action: Action) -> list[str]:
    return [
        taken(name),
        *([holdout(name)] if action.holdout else []),
        *([not_met(name), not_met(name, unknown=True)] if action.where else []),
        below(name),
        *([recent(name)] if action.not_within_days else []),
        *(over_cap(name, column) for column in action.most_per),
        *([over_cap(name)] if action.most is not None else []),
    ]
