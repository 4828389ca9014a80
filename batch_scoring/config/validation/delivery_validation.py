"""Checks of what the sections on decisions, exports and the day's page refer to: columns, rules, and each other.

No code is run and no bundle is read, so a column's type and the number of classes are left to the run.
"""

import itertools
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from batch_scoring.config.delivery_spec import (
    NO_ACTION,
    Action,
    AnyExport,
    Decisions,
    FileExport,
    PostgresExport,
    RedisExport,
)
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.rules import reasons
from batch_scoring.config.rules.expressions import Rule, nearest
from batch_scoring.config.spec import PipelineSpec
from batch_scoring.config.validation.spec_validation import OF_DECISIONS
from batch_scoring.errors import RuleError

_SCORES = ("prob_class_0", "prob_class_1", "prediction", "prediction_proba")
_SCORE = re.compile(r"prob_(class|label)_\d+|quantile_\d+|prediction_(?!prob)\w+|norm")
"""A score with a number for each row: only the bundle knows which there are."""
_LIST = re.compile(r"top_classes|top_probs|embedding")
"""A column of lists."""
_BESIDES = (*_SCORES, "model_version", "scored_at", "source_file", "row_number")
"""Columns that every scored row has, besides those that the spec names."""


_FIELDS = {"file": "path", "postgres": "table", "redis": "prefix"}
"""The field of each kind of sink that an error about its place names."""

_FORM = re.compile(r"\.(csv|csv\.gz|parquet|jsonl)$")


@dataclass(frozen=True)
class _Columns:
    """Columns that some field may name."""

    names: tuple[str, ...]
    hints: Mapping[str, str] = field(default_factory=dict)
    """What to do about other columns, by name."""
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """All values of a column, by its name, if they are known."""
    has_lists: bool = True
    """Whether a column may hold lists."""

    def check(self, place: str, name: str) -> Iterator[str]:
        """Yield an error about a column that does not exist."""
        if name not in self.names and not self._is_of_model(name):
            yield f"{place}: {name!r}: no such column; {self.hints.get(name) or nearest(name, self.names)}"

    def _is_of_model(self, name: str) -> bool:
        """Whether some model's predictions have such a column."""
        return bool(_SCORE.fullmatch(name) or (self.has_lists and _LIST.fullmatch(name)))

    def check_rule(self, place: str, text: str) -> Iterator[str]:
        """Yield an error about a text that is no rule about these columns."""
        try:
            rule = Rule.parse(text, place)
            scores = [name for name in rule.names if _SCORE.fullmatch(name)]
            rule.check_columns([*self.names, *scores], self.hints)
            rule.check_values(self.values)
        except RuleError as error:
            yield str(error)


def unmet_names(spec: PipelineSpec, schema_columns: Sequence[str]) -> Iterator[str]:
    """Errors of names in `decisions` and `exports`, each with its field first.

    Args:
        spec: with its valid sections at least, among them input and features.
        schema_columns: columns of the schema, if they are known without running it.
    """
    validated = spec.features.validated(schema_columns)
    rows = (spec.input.key, *validated, *spec.input.attributes, *_BESIDES)
    hints = {name: "it is a column of the schema: name it under input.attributes" for name in schema_columns}
    if validated != spec.features.inputs:
        made = (name for name in spec.features.inputs if name not in validated)
        hints |= dict.fromkeys(made, "features.transform makes it for the model, and no table has it")
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
            yield from _unmet_in_export(place, export, _Columns((*OF_DECISIONS, *rows), hints, _values(decisions)))
        else:
            yield f"{place}.of: 'decisions': the spec has no section decisions; expected predictions"


def misplaced_exports(pipeline: Pipeline) -> Iterator[str]:
    """Errors of exports that write where they must not, each with its field first.

    Args:
        pipeline: with the valid sections of its spec at least, among them input.
    """
    exports = pipeline.spec.exports
    if hasattr(pipeline.spec, "output"):
        for name, export in exports.items():
            if isinstance(export, FileExport):
                yield from _within_our_folders(f"exports.{name}.path", export.path, pipeline)
    yield from _shared_sinks(exports, pipeline.data_root)


def _unmet_in_decisions(decisions: Decisions, known: _Columns) -> Iterator[str]:
    yield from _Columns(_SCORES, has_lists=False).check("decisions.score", decisions.score)
    for name, rule in decisions.eligible.items():
        yield from known.check_rule(f"decisions.eligible.{name}", rule)
    for name, action in decisions.actions.items():
        if action.where:
            yield from known.check_rule(f"decisions.actions.{name}.where", action.where)
        for column in action.most_per:
            yield from known.check(f"decisions.actions.{name}.most_per", column)


def _values(decisions: Decisions | None) -> Mapping[str, Sequence[str]]:
    """The vocabularies of the columns of decisions, which a misspelt word would never be equal to."""
    if decisions is None:
        return {}
    return {"action": (*decisions.actions, NO_ACTION), "reason": reasons.vocabulary(decisions)}


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


def _within_our_folders(place: str, path: str, pipeline: Pipeline) -> Iterator[str]:
    """An export into a folder whose files mean something else: input files, or rows of a table."""
    ours = {
        "the landing folder": pipeline.landing,
        "the tables": pipeline.output.subfolder("tables"),
        "the state": pipeline.output.subfolder("state"),
    }
    for what, folder in ours.items():
        if _normal(path, pipeline.data_root).startswith(f"{_normal(folder.uri, pipeline.data_root).rstrip('/')}/"):
            yield f"{place}: {path!r}: this is within {what} of {pipeline.name}; expected a folder of its own"


def _shared_sinks(exports: Mapping[str, AnyExport], root: str) -> Iterator[str]:
    """Exports that would write to the same place on the same day, where one would replace the other.

    A prefix in Redis has one export: its pointer to the newest day would turn from one to the other.
    """
    for (name, one), (other_name, other) in itertools.combinations(exports.items(), 2):
        may_share = not isinstance(one, RedisExport)
        is_disjoint = one.days and other.days and not set(one.days) & set(other.days)
        if _address(one, root) == _address(other, root) and not (may_share and is_disjoint):
            field = _FIELDS[other.to]
            yield (
                f"exports.{other_name}.{field}: {getattr(other, field)!r}: exports.{name} writes there too; "
                f"expected a place of its own{', or other days' if may_share else ''}"
            )


def _address(export: AnyExport, root: str) -> tuple[str, ...]:
    """Where an export writes its marker: of files, two forms with one name have the same."""
    if isinstance(export, FileExport):
        return (export.to, _FORM.sub("", _normal(export.path, root)))
    return (export.to, export.url_from, export.table if isinstance(export, PostgresExport) else export.prefix)


def _normal(path: str, root: str) -> str:
    """A path in one spelling, whether it is absolute or below the data root."""
    whole = path if path.startswith(("/", "s3://")) else f"{root.rstrip('/')}/{path}"
    if whole.startswith("s3://"):
        return f"s3://{posixpath.normpath(whole.removeprefix('s3://'))}"
    return posixpath.normpath(Path(whole).absolute())
