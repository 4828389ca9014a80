"""Supported settings of a pandera schema: those that apply to one row alone. All others are rejected by name.

No setting is ignored silently: one that pandera would apply and this project does not is rejected when the schema is
loaded, with a suggestion of what to write instead.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandera.pandas

_ELEMENT_CHECKS = "; expected checks on the elements of one column, which name the rows that fail"
_UNIQUE_KEY = "the key is unique by input.key"
_NEVER_DROPPED = "; a row that breaks a rule is quarantined with its reason, never dropped: drop the setting"


def refused(schema: "pandera.pandas.DataFrameSchema", model: object) -> Iterator[str]:
    """Yield what is wrong with a schema's settings, and what to write instead.

    Args:
        schema: as created from the model.
        model: the class that defines it; some settings are only kept in its Config.
    """
    yield from _of_frame(schema)
    config = getattr(model, "__config__", None)
    for name in ("from_format", "to_format"):
        if getattr(config, name, None) is not None:
            yield f" has {name}: files are read and tables written as the spec says: drop the setting"
    for name, column in schema.columns.items():
        yield from (f": {name} {fault}" for fault in _of_column(column))
        for check in column.checks:
            yield from (f": {fault.format(name)}" for fault in _of_check(check))


def _of_frame(schema: "pandera.pandas.DataFrameSchema") -> Iterator[str]:
    if schema.checks or schema.parsers or schema.index is not None:
        yield f" checks or changes the whole frame or its index{_ELEMENT_CHECKS}"
    if schema.strict or schema.ordered:
        yield (
            " is strict or ordered; columns that it does not declare are reported and ignored, in any order: drop the "
            "setting"
        )
    if schema.unique:
        yield f": unique={schema.unique}; {_UNIQUE_KEY}{_ELEMENT_CHECKS}"
    if schema.dtype is not None:
        yield f" has dtype {schema.dtype} for all columns; expected a type for each column: drop the setting"
    if schema.drop_invalid_rows:
        yield f" has drop_invalid_rows{_NEVER_DROPPED}"
    if schema.add_missing_columns:
        yield (" has add_missing_columns, which invents data; a file without a column stops the day: drop the setting")
    if schema.unique_column_names:
        yield (
            " has unique_column_names; a file with a column of the schema twice stops the day anyway: drop the setting"
        )


def _of_column(column: "pandera.pandas.Column") -> Iterator[str]:
    """Yield problems, worded to follow the column's name."""
    if column.unique:
        yield f"is unique=True; {_UNIQUE_KEY}{_ELEMENT_CHECKS}"
    if not column.required:
        yield (
            "may be absent; expected columns that every file has: declare it without Optional and with nullable=True, "
            "or leave it out"
        )
    if column.regex or column.parsers:
        yield f"has a regex name or a parser{_ELEMENT_CHECKS}"
    if column.default is not None:
        yield f"has a default, which changes rows{_ELEMENT_CHECKS}"
    if column.drop_invalid_rows:
        yield f"has drop_invalid_rows{_NEVER_DROPPED}"
    yield from _of_type(column.dtype)


def _of_type(dtype: Any) -> Iterator[str]:  # noqa: ANN401  (one of pandera's many)
    if getattr(dtype, "categories", None) is not None:
        yield "has categories in its type; expected str with isin=[...], which names the rows that fail"
    if getattr(dtype, "to_datetime_kwargs", None):
        yield "has to_datetime_kwargs; times are read as ISO 8601 (2024-03-04 10:00:00+02:00): drop them"


def _of_check(check: Any) -> Iterator[str]:  # noqa: ANN401  (a check or a hypothesis)
    """Yield problems, with {} in place of the column's name."""
    from pandera.api.hypotheses import Hypothesis

    if check.groupby is not None:
        yield f"a check of {{}} groups rows{_ELEMENT_CHECKS}"
    if isinstance(check, Hypothesis) or check.name == "unique_values_eq":
        yield f"the check {check.name} of {{}} applies to the whole column{_ELEMENT_CHECKS}"
    if check.raise_warning:
        yield (
            f"the check {check.name} of {{}} has raise_warning=True, and nobody would see the warning; expected a "
            "check whose rows are quarantined: drop the setting, or the check"
        )
