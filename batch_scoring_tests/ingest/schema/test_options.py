"""Every setting that pandera has, by where it stands: honoured row by row, refused by name, or without effect."""

import inspect

import pandera.pandas
import pyarrow as pa
import pytest
from pandera.api.pandas.model_config import BaseConfig

from batch_scoring.errors import ContractError
from batch_scoring_tests.ingest.schema import test_contract
from batch_scoring_tests.ingest.schema.test_contract import contract, reasons, rows, schema
from batch_scoring_tests.tiny import TinyProject

tiny, one_tiny = test_contract.tiny, test_contract.one_tiny  # fixtures

HONOURED, REFUSED, NO_EFFECT = "honoured", "refused", "no effect"
CHECKS = "eq ne gt ge lt le in_range isin notin str_contains str_endswith str_length str_matches str_startswith "
WORDS = "title description metadata "
OF_FRAMES = "dtype strict ordered unique unique_column_names add_missing_columns drop_invalid_rows "


def options(honoured: str, refused: str, no_effect: str) -> dict[str, str]:
    names = {HONOURED: honoured, REFUSED: refused, NO_EFFECT: no_effect}
    return {name: how for how, listed in names.items() for name in listed.split()}


OPTIONS = {
    # without effect: what is of an index, of an optional column or of a format, all of which are refused
    "Config": options(
        "coerce",
        OF_FRAMES + "from_format to_format",
        WORDS + "name multiindex_name multiindex_coerce multiindex_unique multiindex_strict multiindex_ordered "
        "from_format_kwargs to_format_kwargs to_format_buffer on_missing_columns",
    ),
    "Field": options(
        CHECKS + "nullable coerce ignore_na alias dtype_kwargs kwargs",
        "required unique regex raise_warning default",
        WORDS + "n_failure_cases check_name on_missing",
    ),
    "Check": options(
        "check_fn ignore_na element_wise name error check_kwargs",
        "groups groupby raise_warning",
        "title description native n_failure_cases statistics strategy constraint determined_by_unique",
    ),
    "Column": options(
        "dtype checks nullable coerce name",
        "parsers unique required regex default drop_invalid_rows",
        WORDS + "report_duplicates on_missing",
    ),
    "DataFrameSchema": options(
        "columns coerce", OF_FRAMES + "checks parsers index", WORDS + "name report_duplicates on_missing_columns"
    ),
}

GROUPED = "@pa.check('x', groupby='c')\ndef grouped(cls, groups):\n    return groups['red'] > 0"
REFUSALS = {
    "Config.dtype": ("class Config:\n    dtype = float", "has dtype float64 for all columns; expected"),
    "Config.drop_invalid_rows": (
        "class Config:\n    drop_invalid_rows = True",
        "has drop_invalid_rows; a row that breaks a rule is quarantined with its reason, never dropped: drop the",
    ),
    "Config.unique": ("class Config:\n    unique = ['x']", r"unique=\['x'\]; the key is unique by input.key"),
    "Config.strict": ("class Config:\n    strict = 'filter'", "is strict or ordered; columns that it"),
    "Config.ordered": ("class Config:\n    ordered = True", "is strict or ordered"),
    "Config.unique_column_names": ("class Config:\n    unique_column_names = True", "has unique_column_names"),
    "Config.add_missing_columns": (
        "class Config:\n    add_missing_columns = True",
        "has add_missing_columns, which invents data; a file without a column stops the day: drop the setting",
    ),
    "Config.from_format": ("class Config:\n    from_format = 'csv'", "has from_format: files are read and tables"),
    "Config.to_format": ("class Config:\n    to_format = 'dict'", "has to_format: files are read and tables"),
    "Field.required": ("z: int = pa.Field(required=False)", "z may be absent"),
    "Field.unique": ("z: int = pa.Field(unique=True)", "z is unique=True"),
    "Field.regex": ("z: int = pa.Field(alias='z_.*', regex=True)", r"z_\.\* has a regex name"),
    "Field.raise_warning": (
        "z: int = pa.Field(ge=0, raise_warning=True)",
        "the check greater_than_or_equal_to of z has raise_warning=True, and nobody would see the warning; expected",
    ),
    "Field.default": ("z: int = pa.Field(default=1)", "z has a default, which changes rows"),
    "Check.groups": (
        GROUPED.replace("'c'", "'c', groups='red'"),
        "a check of x groups rows",
    ),
    "Check.groupby": (GROUPED, "a check of x groups rows"),
    "Check.raise_warning": (
        "@pa.check('x', raise_warning=True)\ndef is_low(cls, series):\n    return series < 0",
        "the check is_low of x has raise_warning=True",
    ),
    "Column.parsers": ("@pa.parser('x')\ndef half(cls, s):\n    return s / 2", "x has a regex name or a parser"),
    "DataFrameSchema.checks": (
        "@pa.dataframe_check\ndef whole(cls, frame):\n    return frame.x > 0",
        "the whole frame",
    ),
    "DataFrameSchema.parsers": ("@pa.dataframe_parser\ndef whole(cls, frame):\n    return frame", "the whole frame"),
    "DataFrameSchema.index": ("row: pa.typing.Index[int]", "the whole frame or its index"),
    "one value for a whole column": (
        "z: int = pa.Field(unique_values_eq=[1, 2])",
        "the check unique_values_eq of z applies to the whole column",
    ),
    "categories of a type": (
        "z: pa.Category = pa.Field(dtype_kwargs={'categories': ['a', 'b']})",
        r"z has categories in its type; expected str with isin=\[\.\.\.\]",
    ),
    "how times are read": (
        "z: __import__('pandera.engines').engines.pandas_engine.DateTime = pa.Field("
        "dtype_kwargs={'to_datetime_kwargs': {'dayfirst': True}})",
        "z has to_datetime_kwargs; times are read as ISO 8601",
    ),
}
SETTINGS = {
    "Column.unique": True,
    "Column.required": False,
    "Column.regex": True,
    "Column.default": 1.0,
    "Column.drop_invalid_rows": True,
    "DataFrameSchema.dtype": "float64",
    "DataFrameSchema.strict": True,
    "DataFrameSchema.ordered": True,
    "DataFrameSchema.unique": ["x"],
    "DataFrameSchema.unique_column_names": True,
    "DataFrameSchema.add_missing_columns": True,
    "DataFrameSchema.drop_invalid_rows": True,
}
"""Attributes of a schema that a class makes by hand."""


def test_the_table_has_every_setting_of_this_pandera() -> None:
    signatures = {
        "Field": pandera.pandas.Field,
        "Check": pandera.pandas.Check.__init__,
        "Column": pandera.pandas.Column.__init__,
        "DataFrameSchema": pandera.pandas.DataFrameSchema.__init__,
    }
    there = {name: set(inspect.signature(function).parameters) - {"self"} for name, function in signatures.items()}
    there["Config"] = {name for name in dir(BaseConfig) if not name.startswith("_")}
    assert {name: set(found) for name, found in OPTIONS.items()} == there


def test_the_table_has_a_case_of_every_refusal() -> None:
    refused = {
        f"{place}.{name}" for place, options in OPTIONS.items() for name, how in options.items() if how == REFUSED
    }
    assert refused - REFUSALS.keys() - SETTINGS.keys() == set()


@pytest.mark.parametrize("case", REFUSALS)
def test_what_would_be_dropped_is_refused_by_name(tiny: TinyProject, case: str) -> None:
    addition, message = REFUSALS[case]
    with pytest.raises(ContractError, match=f"{tiny.name}: schema:Rows.*{message}") as caught:
        contract(tiny, f"{schema()}\n{addition}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", SETTINGS)
def test_what_a_schema_of_ones_own_making_sets_is_refused_too(tiny: TinyProject, case: str) -> None:
    place, name = case.split(".")
    target = "schema.columns['x']" if place == "Column" else "schema"
    lines = [
        "@classmethod",
        "def to_schema(cls):",
        "    schema = super().to_schema()",
        f"    {target}.{'_dtype' if name == 'dtype' else name} = {SETTINGS[case]!r}",
        "    return schema",
    ]
    if name == "dtype":
        lines[3] = "    schema.dtype = 'float64'"
    with pytest.raises(ContractError, match=f"{tiny.name}: schema:Rows"):
        contract(tiny, "\n".join([schema(), *lines]))


@pytest.mark.parametrize(
    "addition",
    [
        "class Config:\n    name = 'n'\n    title = 't'\n    metadata = {'a': 1}\n"
        "    on_missing_columns = 'warn'\n    multiindex_coerce = True\n    multiindex_strict = True",
        "z: float = pa.Field(ge=0, n_failure_cases=1, title='t', description='d', on_missing='warn', check_name=True)",
    ],
)
def test_what_has_no_effect_on_rows_has_none_here(tiny: TinyProject, addition: str) -> None:
    asked = contract(tiny, f"{schema()}\n{addition}")
    result = asked.validate(rows(x=[1.0, 2.0, 3.0], z=[-1.0, -1.0, 1.0]), is_text=False)
    assert list(result.rejected) == ([0, 1] if "z:" in addition else [])


def test_missing_values_are_asked_about_where_a_check_does_not_ignore_them(tiny: TinyProject) -> None:
    fields = {
        "y": "float = pa.Field(ge=0, nullable=True, ignore_na=False)",
        "n": "int = pa.Field(ge=0, nullable=True, ignore_na=False)",
        "c": "str = pa.Field(isin=['red'], nullable=True, ignore_na=False)",
    }
    for name in fields:
        asked = contract(tiny, schema(**{other: kind for other, kind in fields.items() if other == name}))
        values = {"y": [1.0, None, -1.0], "n": [1, None, -1], "c": ["red", None, "blue"]}[name]
        found = reasons(asked.validate(rows(**{name: values}), is_text=False))
        assert [(row, column, value) for row, (_, _, column, value) in found.items()] == [
            (1, name, None),
            (2, name, str(values[2])),
        ]


def test_a_registered_check_a_name_and_a_message_are_heeded(tiny: TinyProject) -> None:
    own = (
        "@pa.check('n', name='is_even', error='an even number')\ndef whatever(cls, series):\n    return series % 2 == 0"
    )
    asked = contract(tiny, schema(x="float = pa.Field(between=(0, 5))") + "\n" + own)
    found = reasons(asked.validate(rows(n=[2, 3], x=[1.0, 1.0]), is_text=False))
    assert found == {1: ("rule", "an even number", "n", "3")}


def test_a_bound_decides_alike_beside_a_missing_value(tiny: TinyProject) -> None:
    """pandas would make a float of 2**53 + 1 beside it, which is 2**53."""
    asked = contract(tiny, schema(n=f"int = pa.Field(le={2**53}, nullable=True)"))
    for cells in ([2**53 + 1, 2**53], [2**53 + 1, 2**53, None], [2**53 + 1]):
        assert list(asked.validate(rows(n=pa.array(cells, pa.int64())), is_text=False).rejected) == [0]
    own = "@pa.check('n')\ndef is_whole(cls, series):\n    return (series == 2**53 + 1) & (series.dtype == 'int64')"
    asked = contract(tiny, f"{schema(n='int = pa.Field(nullable=True)')}\n{own}")
    assert not asked.validate(rows(n=pa.array([2**53 + 1, None], pa.int64())), is_text=False).rejected
