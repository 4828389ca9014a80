"""Checks of what the sections on decisions, exports and the day's page refer to: columns, rules, and each other.

No code is run and no bundle is read, so a column's type and the number of classes are left to the run.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from batch_scoring.config.delivery_spec import Action, AnyExport, Decisions, FileExport, PostgresExport, RedisExport
from batch_scoring.config.rules.expressions import Rule, nearest
from batch_scoring.config.spec import PipelineSpec
from batch_scoring.config.validation.spec_validation import OF_DECISIONS
from batch_scoring.errors import RuleError

_SCORES = ("prob_class_0", "prob_class_1", "prediction", "prediction_proba")
_CLASS = re.compile(r"prob_class_\d+")
"""A score: only the bundle knows how many there are."""
_BESIDES = (*_SCORES, "model_version", "scored_at", "source_file", "row_number")
"""Columns that every scored row has, besides those that the spec names."""


@dataclass(frozen=True)
class _Columns:
    """Columns that some field may name."""

    names: tuple[str, ...]
    hints: Mapping[str, str] = field(default_factory=dict)
    """What to do about other columns, by name."""

    def check(self, place: str, name: str) -> Iterator[str]:
        """Yield an error about a column that does not exist."""
        if name not in self.names and not _CLASS.fullmatch(name):
            yield f"{place}: {name!r}: no such column; {self.hints.get(name) or nearest(name, self.names)}"

    def check_rule(self, place: str, text: str) -> Iterator[str]:
        """Yield an error about a text that is no rule about these columns."""
        try:
            rule = Rule.parse(text, place)
            scores = [name for name in rule.names if _CLASS.fullmatch(name)]
            rule.check_columns([*self.names, *scores], self.hints)
        except RuleError as error:
            yield str(error)


def unmet_names(spec: PipelineSpec, schema_columns: Sequence[str]) -> Iterator[str]:
    """Errors of names in `decisions` and `exports`, each with its field first.

    Args:
        spec: with its valid sections at least, among them input and features.
        schema_columns: columns of the schema, if they are known without running it.
    """
    rows = (spec.input.key, *spec.features.names, *spec.input.attributes, *_BESIDES)
    hints = {name: "it is a column of the schema: name it under input.attributes" for name in schema_columns}
    decisions = getattr(spec, "decisions", None)
    if decisions:
        yield from _unmet_in_decisions(decisions, _Columns(rows, hints))
    if hasattr(spec, "decisions"):  # not if it is invalid
        yield from _unknown_actions(spec, decisions.actions if decisions else {})
    for column in spec.page.columns:
        yield from _Columns(rows, hints).check("page.columns", column)
    of_decisions = {name: "it is a column of decisions: write of: decisions" for name in OF_DECISIONS}
    for name, export in spec.exports.items():
        place = f"exports.{name}"
        if export.of == "predictions":
            yield from _unmet_in_export(place, export, _Columns(rows, hints | (of_decisions if decisions else {})))
        elif decisions or not hasattr(spec, "decisions"):
            yield from _unmet_in_export(place, export, _Columns((*OF_DECISIONS, *rows), hints))
        else:
            yield f"{place}.of: 'decisions': the spec has no section decisions; expected predictions"
    yield from _shared_sinks(spec.exports)


def _unmet_in_decisions(decisions: Decisions, known: _Columns) -> Iterator[str]:
    yield from _Columns(_SCORES).check("decisions.score", decisions.score)
    for name, rule in decisions.eligible.items():
        yield from known.check_rule(f"decisions.eligible.{name}", rule)
    for name, action in decisions.actions.items():
        if action.where:
            yield from known.check_rule(f"decisions.actions.{name}.where", action.where)
        for column in action.most_per:
            yield from known.check(f"decisions.actions.{name}.most_per", column)


def _unknown_actions(spec: PipelineSpec, actions: Mapping[str, Action]) -> Iterator[str]:
    """Alerts about actions that no row can get."""
    for name in spec.alerts.actions:
        if name not in actions:
            what = nearest(name, list(actions)) if actions else "the spec has no section decisions"
            yield f"alerts.actions.{name}: no such action; {what}"


def _unmet_in_export(place: str, export: AnyExport, known: _Columns) -> Iterator[str]:
    if export.where:
        yield from known.check_rule(f"{place}.where", export.where)
    if export.order:
        yield from known.check(f"{place}.order", export.order.removeprefix("-"))
    for column in dict.fromkeys(export.columns):
        yield from known.check(f"{place}.columns", column)
        if export.columns.count(column) > 1:
            yield f"{place}.columns: {column!r} is named more than once; expected every column once"
    if isinstance(export, RedisExport):
        yield from known.check(f"{place}.key", export.key)
        yield from known.check(f"{place}.value", export.value)


def _shared_sinks(exports: Mapping[str, AnyExport]) -> Iterator[str]:
    """Exports that would write to the same place on the same day, where one would replace the other."""
    for (name, one), (other_name, other) in itertools.combinations(exports.items(), 2):
        is_disjoint = one.days and other.days and not set(one.days) & set(other.days)
        if _address(one) == _address(other) and not is_disjoint:
            field, value = _address(other)[0]
            yield (
                f"exports.{other_name}.{field}: {value!r}: exports.{name} writes there too; "
                "expected a place of its own, or other days"
            )


def _address(export: AnyExport) -> tuple[tuple[str, str], ...]:
    """Where an export writes: field and value, the most specific first."""
    if isinstance(export, FileExport):
        return (("path", export.path),)
    if isinstance(export, PostgresExport):
        return (("table", export.table), ("url_from", export.url_from))
    return (("prefix", export.prefix), ("url_from", export.url_from))
