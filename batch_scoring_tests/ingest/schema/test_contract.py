import math
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pandera.errors
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandera.pandas import DataFrameSchema

from batch_scoring.errors import ContractError
from batch_scoring.ingest.schema import casting
from batch_scoring.ingest.schema.contract import Contract, ValidationResult
from batch_scoring_tests.ingest.test_key_index import by_arrows_own_hash, ordinary
from batch_scoring_tests.tiny import SCHEMA, TinyProject

HEAD = "import pandas as pd\nimport pandera.pandas as pa\n"


@pytest.fixture(scope="module")
def one_tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    return TinyProject(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny(one_tiny: TinyProject) -> TinyProject:
    """One project for all tests of this module: they look at its schema alone."""
    one_tiny.write_code(SCHEMA)
    return one_tiny


def contract(tiny: TinyProject, fields: str) -> Contract:
    """The contract of a schema with these fields; the spec names id, x, y, n and c."""
    lines = "\n".join(f"    {line}" for line in fields.strip().splitlines())
    tiny.write_code(f"{HEAD}class Rows(pa.DataFrameModel):\n{lines}\n")
    return Contract(tiny.pipeline)


def schema(**fields: str) -> str:
    """The tiny schema's fields without rules, some replaced."""
    types = {"id": "str", "x": "float", "y": "float", "n": "int", "c": "str = pa.Field(nullable=True)"} | fields
    return "\n".join(f"{name}: {kind}" for name, kind in types.items())


def rows(**columns: object) -> pa.RecordBatch:
    """As many good rows as the columns given have."""
    count = len(next(iter(columns.values())))  # type: ignore[call-overload]
    good = {
        "id": [f"k{n}" for n in range(count)],
        "x": [1.0] * count,
        "y": [2.0] * count,
        "n": [3] * count,
        "c": ["red"] * count,
    }
    return pa.RecordBatch.from_pydict(good | columns)


def texts(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows as a CSV file holds them."""
    columns = [[None if cell is None else str(cell).encode() for cell in column.to_pylist()] for column in batch]
    return pa.RecordBatch.from_arrays([pa.array(c, pa.binary()) for c in columns], batch.schema.names)


def reasons(result: ValidationResult) -> dict[int, tuple[str, str, str, str | None]]:
    return {row: (r.stage, r.rule, r.column, r.value) for row, r in sorted(result.rejected.items())}


# types and casts


def test_accepted_rows_are_typed_and_hold_the_key_and_the_features_in_the_specs_order(tiny: TinyProject) -> None:
    asked = contract(tiny, "c: str\nextra: int\nn: pa.Int16\ny: float\nid: str\nx: pa.Float32")
    assert asked.arrow_schema == pa.schema(
        [
            pa.field(name, kind, nullable=False)
            for name, kind in (
                ("id", pa.string()),
                ("x", pa.float32()),
                ("y", pa.float64()),
                ("n", pa.int16()),
                ("c", pa.string()),
            )
        ]
    )
    result = asked.validate(rows(extra=[1, 2]), is_text=False)
    assert result.accepted.schema == asked.arrow_schema
    assert result.accepted.num_rows == 2
    assert result.positions.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("kind", "cell", "expected"),
    [
        ("int", b"7", 7),
        ("int", b" -7 ", -7),
        ("int", b"7.0", None),
        ("int", b"7.5", None),
        ("int", b"", None),
        ("int", b"x", None),
        ("int", b"9223372036854775808", None),
        ("float", b"7", 7.0),
        ("float", b" 1e3 ", 1000.0),
        ("float", b"1,5", None),
        ("float", b"x", None),
        ("bool", b"true", True),
        ("bool", b"0", False),
        ("bool", b"maybe", None),
    ],
)
def test_a_cell_of_text_is_cast_or_its_row_rejected(
    tiny: TinyProject, kind: str, cell: bytes, expected: object
) -> None:
    asked = contract(tiny, schema(n=kind))
    batch = texts(rows(n=[1, 1, 1]))
    batch = batch.set_column(3, "n", pa.array([b"1", cell, b"0"]))
    result = asked.validate(batch, is_text=True)
    if expected is None:
        assert result.positions.tolist() == [0, 2]
        name = {"int": "is_int64", "float": "is_double", "bool": "is_bool"}[kind]
        assert reasons(result) == {1: ("schema", name, "n", cell.decode().strip())}
    else:
        assert result.accepted.column("n")[1].as_py() == expected
        assert not result.rejected


@pytest.mark.parametrize(
    ("kind", "column", "expected"),
    [
        ("float", pa.array([1, 2], pa.int32()), [1.0, 2.0]),
        ("float", pa.array([1.5, 2.5], pa.float32()), [1.5, 2.5]),
        ("pa.Float32", pa.array([0.1, 0.2], pa.float64()), [float(np.float32(0.1)), float(np.float32(0.2))]),
        ("int", pa.array([1, 2], pa.uint8()), [1, 2]),
        ("pa.Int8", pa.array([1, 127], pa.int64()), [1, 127]),
        ("str", pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        ("str", pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        ("str", pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
        ("int", pa.array([5, 5]).dictionary_encode(), [5, 5]),
        ("bool", pa.array([True, False]), [True, False]),
        (
            "pd.Timestamp",
            pa.array([0, 1], pa.timestamp("s")),
            [datetime(1970, 1, 1, 0, 0, second, tzinfo=UTC) for second in (0, 1)],
        ),
    ],
)
def test_a_parquet_column_of_the_same_kind_is_taken(
    tiny: TinyProject, kind: str, column: pa.Array, expected: list[object]
) -> None:
    asked = contract(tiny, schema(extra=kind))
    batch = rows(extra=column)
    assert asked.unexpected(batch.schema, "file", is_text=False) == []
    result = asked.validate(batch, is_text=False)
    assert not result.rejected
    assert result.accepted.num_rows == 2
    features = tiny.spec["features"]["categorical" if kind in ("str", "pd.Timestamp") else "numeric"]
    features.append("extra")
    tiny.write_spec()
    try:
        assert Contract(tiny.pipeline).validate(batch, is_text=False).accepted["extra"].to_pylist() == expected
    finally:
        features.remove("extra")
        tiny.write_spec()


def test_an_integer_that_does_not_fit_is_rejected(tiny: TinyProject) -> None:
    result = contract(tiny, schema(n="pa.Int8")).validate(rows(n=[127, 128, -129]), is_text=False)
    assert reasons(result) == {1: ("schema", "is_int8", "n", "128"), 2: ("schema", "is_int8", "n", "-129")}


def test_a_column_of_nulls_is_taken_for_any_type(tiny: TinyProject) -> None:
    asked = contract(tiny, schema(y="float = pa.Field(nullable=True)"))
    batch = rows(y=pa.nulls(2), c=pa.nulls(2))
    assert asked.unexpected(batch.schema, "file", is_text=False) == []
    assert asked.validate(batch, is_text=False).accepted["y"].to_pylist() == [None, None]


@pytest.mark.parametrize("is_text", [True, False])
def test_text_that_is_not_utf8_is_rejected_wherever_it_comes_from(tiny: TinyProject, is_text: bool) -> None:
    odd = pa.array([b"red", b"gr\xfcn", b"blue"])
    batch = texts(rows(c=["a", "b", "c"])) if is_text else rows(c=["a", "b", "c"])
    wrong = odd if is_text else pa.Array.from_buffers(pa.string(), 3, odd.buffers())
    asked = contract(tiny, schema())
    result = asked.validate(batch.set_column(4, "c", wrong), is_text=is_text)
    assert reasons(result) == {1: ("read", "is_utf8", "c", "gr\\xfcn")}
    assert result.accepted["c"].to_pylist() == ["red", "blue"]


# nulls, NaN, infinity


@pytest.mark.parametrize("is_text", [True, False])
def test_missing_values_are_nulls_and_accepted_where_the_schema_says_so(tiny: TinyProject, is_text: bool) -> None:
    asked = contract(tiny, schema(y="float = pa.Field(nullable=True)"))
    batch = rows(id=[None, "b", "c", "d"], x=[1.0, None, 1.0, 1.0], y=[1.0, 1.0, None, 1.0], n=[1, 1, 1, None])
    result = asked.validate(texts(batch) if is_text else batch, is_text=is_text)
    assert reasons(result) == {
        0: ("rule", "not_nullable", "id", None),
        1: ("rule", "not_nullable", "x", None),
        3: ("rule", "not_nullable", "n", None),
    }
    assert result.accepted["y"].to_pylist() == [None]


def test_a_key_is_never_null_whatever_the_schema_says(tiny: TinyProject) -> None:
    asked = contract(tiny, schema(id="str = pa.Field(nullable=True)"))
    assert reasons(asked.validate(rows(id=[None, "b"]), is_text=False)) == {0: ("rule", "not_nullable", "id", None)}


def test_a_key_is_never_blank(tiny: TinyProject) -> None:
    keys = ["", "b", "\u3000 ", "\u200b", "c d"]
    assert reasons(contract(tiny, schema()).validate(rows(id=keys), is_text=False)) == {
        0: ("rule", "key_is_not_blank", "id", ""),
        2: ("rule", "key_is_not_blank", "id", "\u3000 "),
    }


@pytest.mark.parametrize("is_text", [True, False])
def test_nan_and_infinity_are_rejected_also_in_a_nullable_column(tiny: TinyProject, is_text: bool) -> None:
    asked = contract(tiny, schema(y="float = pa.Field(nullable=True)", z="pa.Float32"))
    batch = rows(y=[math.nan, math.inf, -math.inf, 1.0, 1.0], z=[1.0, 1.0, 1.0, 1e300, 1.0])
    result = asked.validate(texts(batch) if is_text else batch, is_text=is_text)
    assert reasons(result) == {
        0: ("rule", "is_finite", "y", "nan"),
        1: ("rule", "is_finite", "y", "inf"),
        2: ("rule", "is_finite", "y", "-inf"),
        3: ("rule", "is_finite", "z", "inf"),  # too large for the type
    }


# rules


def test_a_row_is_rejected_under_the_first_of_its_faults_with_the_value_as_it_was(tiny: TinyProject) -> None:
    asked = contract(tiny, schema(x="float = pa.Field(ge=0, le=9)", n="int = pa.Field(isin=[1, 2])"))
    result = asked.validate(rows(x=[-1.0, 10.0, 5.0, 5.0], n=[2, 1, 2**60, 1]), is_text=False)
    assert reasons(result) == {
        0: ("rule", "greater_than_or_equal_to(0)", "x", "-1.0"),
        1: ("rule", "less_than_or_equal_to(9)", "x", "10.0"),
        2: ("rule", "isin([1, 2])", "n", str(2**60)),
    }
    assert result.positions.tolist() == [3]


def test_rules_decide_about_rows_whose_types_fit(tiny: TinyProject) -> None:
    asked = contract(tiny, schema(x="float = pa.Field(ge=0)"))
    batch = texts(rows(x=[1, -1, -1, 1])).set_column(3, "n", pa.array([b"1", b"1", b"no", b"no"]))
    result = asked.validate(batch, is_text=True)
    assert {row: rule for row, (_, rule, _, _) in reasons(result).items()} == {
        1: "greater_than_or_equal_to(0)",
        2: "is_int64",
        3: "is_int64",
    }
    assert result.positions.tolist() == [0]


def test_nulls_are_not_asked_about_rules(tiny: TinyProject) -> None:
    asked = contract(tiny, schema(y="float = pa.Field(ge=0, nullable=True)", c="str = pa.Field(isin=['red'])"))
    assert not asked.validate(rows(y=[None, 1.0]), is_text=False).rejected


def test_every_failing_row_is_rejected_even_if_the_check_reports_only_a_few(tiny: TinyProject) -> None:
    asked = contract(tiny, schema(n="int = pa.Field(ge=5, n_failure_cases=1)"))
    assert asked.validate(rows(n=[1, 2, 3, 7]), is_text=False).positions.tolist() == [3]


@pytest.mark.parametrize(
    "check",
    [
        "return series.str.upper() == series",
        "return series.fillna('RED') == 'RED'",
        "return series + '!' == 'RED!'",
        "return series >= 'RED' if len(series) == 1 else (series == 'RED')",
        "return series.map(len).lt(9) & (series == 'RED')",
    ],
)
def test_a_check_of_ones_own_sees_text_columns_as_pandera_alone_would_show_them(tiny: TinyProject, check: str) -> None:
    asked = contract(tiny, f"{schema()}\n@pa.check('c')\ndef is_loud(cls, series):\n    {check}")
    result = asked.validate(rows(c=["RED", "red", "RED"]), is_text=False)
    assert reasons(result) == {1: ("rule", "is_loud", "c", "red")}


def test_threads_judge_at_once_and_a_check_of_ones_own_is_asked_by_one_of_them_at_a_time(tiny: TinyProject) -> None:
    check = (
        "is_alone(cls, series):\n    import time\n    cls.asked = getattr(cls, 'asked', 0) + 1\n"
        "    mine = cls.asked\n    time.sleep(0.02)\n    return (series > 0) & (cls.asked == mine)"
    )
    asked = contract(tiny, f"{schema()}\n@pa.check('x')\ndef {check}")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda n: asked.validate(rows(x=[1.0] * n, n=[n] * n), is_text=False), range(1, 13)))
    assert [result.positions.tolist() for result in results] == [list(range(n)) for n in range(1, 13)]


def test_an_elementwise_check_is_asked_about_each_value(tiny: TinyProject) -> None:
    own = "@pa.check('n', element_wise=True)\ndef is_even(cls, value):\n    return value % 2 == 0"
    asked = contract(tiny, f"{schema()}\n{own}")
    assert reasons(asked.validate(rows(n=[2, 3, 4]), is_text=False)) == {1: ("rule", "is_even", "n", "3")}


def test_no_rows_meet_every_contract(tiny: TinyProject) -> None:
    result = contract(tiny, schema(x="float = pa.Field(ge=0)")).validate(rows(x=[1.0]).slice(0, 0), is_text=False)
    assert result.accepted.num_rows == 0
    assert not result.rejected


def test_a_sliced_batch_is_judged_by_its_own_rows(tiny: TinyProject) -> None:
    asked = contract(tiny, schema(x="float = pa.Field(ge=0)"))
    result = asked.validate(rows(x=[-1.0, 1.0, -2.0, 3.0]).slice(1, 2), is_text=False)
    assert reasons(result) == {1: ("rule", "greater_than_or_equal_to(0)", "x", "-2.0")}
    assert result.accepted["id"].to_pylist() == ["k1"]


def test_chosen_texts_take_the_time_of_others(tiny: TinyProject) -> None:
    """Arrow's dictionaries hash without a seed: no column of the file's goes through one."""
    asked = contract(tiny, schema(c="str = pa.Field(isin=['red'], str_matches='.', notin=['x'])"))
    seconds = []
    for words in (chosen := by_arrows_own_hash(8192), ordinary(chosen)):
        batch = rows(c=words)
        found = []
        for _ in range(3):
            start = time.process_time()
            assert len(asked.validate(batch, is_text=False).rejected) == 8192
            found.append(time.process_time() - start)
        seconds.append(min(found))
    assert seconds[0] < 5 * seconds[1] + 0.01


# what is refused

REFUSED = {
    "dataframe check": (
        "@pa.dataframe_check\ndef whole(cls, frame):\n    return frame.x > 0",
        "checks or changes the whole frame or its index; expected checks on the elements of one column",
    ),
    "dataframe parser": (
        "@pa.dataframe_parser\ndef whole(cls, frame):\n    return frame",
        "checks or changes the whole frame or its index",
    ),
    "index": ("row: pa.typing.Index[int]", "checks or changes the whole frame or its index"),
    "unique columns": ("class Config:\n    unique = ['x']", r"unique=\['x'\]; the key is unique by input.key"),
    "unique column": ("z: int = pa.Field(unique=True)", "z is unique=True; the key is unique by input.key"),
    "strict": (
        "class Config:\n    strict = True",
        "is strict or ordered; columns that it does not declare are",
    ),
    "filter": ("class Config:\n    strict = 'filter'", "is strict or ordered"),
    "ordered": ("class Config:\n    ordered = True", "is strict or ordered"),
    "optional column": (
        "z: __import__('typing').Optional[int]",
        "z may be absent; expected columns that every file has",
    ),
    "regex": ("z: int = pa.Field(alias='z_.*', regex=True)", r"z_\.\* has a regex name or a parser"),
    "parser": ("@pa.parser('x')\ndef half(cls, s):\n    return s / 2", "x has a regex name or a parser"),
    "default": ("z: int = pa.Field(default=1)", "z has a default, which changes rows"),
    "groupby": (
        "@pa.check('x', groupby='c')\ndef grouped(cls, groups):\n    return groups['red'] > 0",
        "a check of x groups rows; expected checks on the elements of one column",
    ),
    "unsigned integers": ("z: pa.UInt8", "z is uint8; expected int, float, str, bool, datetime, list"),
    "complex numbers": ("z: complex", "z is complex128; expected int, float, str, bool, datetime, list"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_decided_for_one_row_alone_is_refused_at_load(tiny: TinyProject, case: str) -> None:
    addition, message = REFUSED[case]
    with pytest.raises(ContractError, match=f"{tiny.name}: schema:Rows.*{message}") as caught:
        contract(tiny, f"{schema()}\n{addition}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("answer", ["True", "False", "series.mean() > 0", "series.mean() < 0", "None"])
def test_a_check_that_answers_for_the_whole_column_is_refused_whatever_it_says(tiny: TinyProject, answer: str) -> None:
    asked = contract(tiny, f"{schema()}\n@pa.check('x')\ndef mean_is_usual(cls, series):\n    return {answer}")
    with pytest.raises(
        ContractError,
        match=r"the check mean_is_usual on x did not return one result per row.*expected a check that",
    ):
        asked.validate(rows(x=[1.0, 2.0]), is_text=False)


def test_a_check_that_raises_stops_the_day_by_name(tiny: TinyProject) -> None:
    asked = contract(tiny, f"{schema()}\n@pa.check('x')\ndef is_odd(cls, series):\n    return series.nonsense()")
    with pytest.raises(ContractError, match=r"the check is_odd on x did not return one result per row .*nonsense"):
        asked.validate(rows(x=[1.0, 2.0]), is_text=False)


def test_a_numeric_feature_must_be_a_number(tiny: TinyProject) -> None:
    with pytest.raises(ContractError, match="x is string, but numeric in the spec; expected int, float or bool"):
        contract(tiny, schema(x="str"))


def test_a_column_that_only_the_spec_knows_is_refused(tiny: TinyProject) -> None:
    tiny.write_code(HEAD + "class Base(pa.DataFrameModel):\n    id: str\n    x: float\nRows = Base\n")
    with pytest.raises(ContractError, match="has no column y, n, c, which the spec names"):
        # the spec's own test reads the class; one that inherits from elsewhere is seen here first
        Contract(_parsed_before(tiny))


def _parsed_before(tiny: TinyProject) -> object:
    source = (tiny.folder / "schema.py").read_text()
    tiny.write_code(SCHEMA)
    pipeline = tiny.pipeline
    tiny.write_code(source)
    return pipeline


# columns of a file


def test_a_missing_column_is_named_with_those_that_are_there(tiny: TinyProject) -> None:
    found = rows(x=[1.0]).drop_columns(["x", "c"]).schema
    with pytest.raises(
        ContractError,
        match=f"a.parquet has no column x, c, which schema:Rows of {tiny.name} requires; it has id, y, n: upload the f",
    ):
        contract(tiny, schema()).unexpected(found, "a.parquet", is_text=False)


def test_a_header_of_one_column_raises_the_question_of_the_delimiter(tiny: TinyProject) -> None:
    for header, setting in (
        ("id;x;y;n;c", 'set input: {csv: {delimiter: ";"}} in the spec'),
        ("id\tx\ty", r'set input: {csv: {delimiter: "\t"}} in the spec'),
        ("id x y", "correct input.csv.delimiter in the spec, now ',', or upload a file with all columns"),
    ):
        found = pa.schema([(header, pa.binary())])
        with pytest.raises(ContractError) as raised:
            contract(tiny, schema()).unexpected(found, "a.csv", is_text=True)
        assert str(raised.value).endswith(setting)


def test_a_column_in_other_letters_is_named_with_the_one_that_it_may_be(tiny: TinyProject) -> None:
    found = pa.schema([(name, pa.binary()) for name in ("id", "X", "y", "n", "c ")])
    with pytest.raises(
        ContractError, match=r"has no column x, c, .* lower case \('X' for 'x', 'c ' for 'c'\): correct"
    ):
        contract(tiny, schema()).unexpected(found, "a.csv", is_text=True)


def test_a_csv_file_without_a_header_is_asked_for_one(tiny: TinyProject) -> None:
    found = pa.schema([(cell, pa.binary()) for cell in ("k1", "1.0", "2.0", "3", "red")])
    with pytest.raises(ContractError, match=r"all are missing: upload the file with a header line"):
        contract(tiny, schema()).unexpected(found, "a.csv", is_text=True)


def test_extra_columns_are_named_and_the_order_does_not_matter(tiny: TinyProject) -> None:
    asked = contract(tiny, schema())
    batch = rows(x=[1.0], extra=["?"])
    turned = batch.select(list(reversed(batch.schema.names)))
    assert asked.unexpected(turned.schema, "file", is_text=False) == ["extra"]
    assert asked.validate(turned, is_text=False).accepted.equals(asked.validate(batch, is_text=False).accepted)


@pytest.mark.parametrize(
    ("column", "kind", "found", "expected"),
    [
        ("x", pa.string(), "string", "double"),
        ("n", pa.float64(), "double", "int64"),
        ("n", pa.bool_(), "bool", "int64"),
        ("c", pa.int64(), "int64", "string"),
        ("x", pa.decimal128(9, 2), r"decimal128\(9, 2\)", "double"),
        ("id", pa.binary(), "binary", "string"),
        ("x", pa.list_(pa.float64()), "list<.*>", "double"),
    ],
)
def test_a_retyped_column_is_refused_by_name_and_types(
    tiny: TinyProject, column: str, kind: pa.DataType, found: str, expected: str
) -> None:
    form = rows(x=[1.0]).schema
    form = form.set(form.get_field_index(column), pa.field(column, kind))
    with pytest.raises(
        ContractError, match=f"a.parquet: column {column} is {found}, .*:Rows of .* expects {expected}; u"
    ):
        contract(tiny, schema()).unexpected(form, "a.parquet", is_text=False)


# equality with pandera

RULES = {
    "id": "str = pa.Field(str_length={'min_value': 1})",
    "x": "float = pa.Field(ge=-5, lt=5)",
    "y": "float = pa.Field(nullable=True, notin=[0.0, 1.0])",
    "n": "int = pa.Field(in_range={'min_value': 0, 'max_value': 3}, ne=2)",
    "c": "str = pa.Field(nullable=True, isin=['red', 'Green', ''], str_matches='^[a-z]*$')",
    "d": "str = pa.Field(str_startswith='a', str_endswith='b')",
    "b": "bool = pa.Field(eq=True)",
}
OWN = """
@pa.check('c')
def is_not_empty(cls, series):
    return series != ''
@pa.check('n', element_wise=True)
def is_odd_or_zero(cls, value):
    return value == 0 or value % 2 == 1
@pa.check('y', ignore_na=False)
def is_there_or_not(cls, series):
    return series.isna() | (series < 4)
"""
ROW = st.fixed_dictionaries(
    {
        "id": st.text(max_size=3) | st.none(),
        "x": st.floats(-6, 6) | st.none(),
        "y": st.sampled_from([0.0, 1.0, 2.5, 4.0, 7.0]) | st.none(),
        "n": st.integers(-1, 4),
        "c": st.sampled_from(["red", "Green", "", "mauve"]) | st.none(),
        "d": st.sampled_from(["ab", "acb", "a", "b", "", "a\nb"]) | st.none(),
        "b": st.booleans(),
    }
)
FORM = pa.schema(
    [
        ("id", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("n", pa.int64()),
        ("c", pa.string()),
        ("d", pa.string()),
        ("b", pa.bool_()),
    ]
)


@pytest.fixture(scope="module")
def both(one_tiny: TinyProject) -> tuple[Contract, DataFrameSchema]:
    """The contract, and the schema that it is made from."""
    asked = contract(one_tiny, "\n".join(f"{name}: {kind}" for name, kind in RULES.items()) + OWN)
    return asked, one_tiny.pipeline.load("schema:Rows").to_schema()


@given(table=st.lists(ROW, max_size=30), cut=st.integers(0, 30))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exactly_those_rows_are_accepted_that_pandera_alone_accepts(
    both: tuple[Contract, DataFrameSchema], table: list[dict[str, object]], cut: int
) -> None:
    asked, alone = both
    batch = pa.RecordBatch.from_pylist(table, FORM)
    accepted = []
    for start, part in ((0, batch.slice(0, cut)), (cut, batch.slice(cut))):
        result = asked.validate(part, is_text=False)
        assert sorted([*result.positions.tolist(), *result.rejected]) == list(range(part.num_rows))
        accepted += [start + row for row in result.positions.tolist()]
    assert accepted == accepted_by(alone, batch.to_pandas())


def accepted_by(alone: DataFrameSchema, frame: pd.DataFrame) -> list[int]:
    """The rows that the schema accepts without any code of ours: types, nulls and all."""
    try:
        alone.validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        failed = error.failure_cases["index"]
        assert not failed.isna().any(), error.failure_cases
        return [row for row in range(len(frame)) if row not in set(failed.astype(int))]
    return list(range(len(frame)))


TIMES = {
    "2024-01-01 10:00:00": datetime(2024, 1, 1, 10, tzinfo=UTC),
    "2024-01-01T10:00:00.25": datetime(2024, 1, 1, 10, 0, 0, 250_000, tzinfo=UTC),
    "2024-01-01": datetime(2024, 1, 1, tzinfo=UTC),
    " 2024-01-01 10:00:00Z": datetime(2024, 1, 1, 10, tzinfo=UTC),
    "2024-01-01 10:00:00+02:00": datetime(2024, 1, 1, 8, tzinfo=UTC),
}


@pytest.mark.parametrize("kind", ["pd.Timestamp", "pd.DatetimeTZDtype = pa.Field(dtype_kwargs={'tz': 'UTC'})"])
def test_a_time_without_a_zone_is_utc_in_csv_as_in_parquet(tiny: TinyProject, kind: str) -> None:
    asked = contract(tiny, schema(c=kind))
    tiny.spec["features"]["categorical"] = ["c"]
    result = asked.validate(texts(rows(c=[*TIMES, "soon", "2024-13-01"])), is_text=True)
    assert [value.as_py() for value in result.accepted["c"]] == list(TIMES.values())
    assert [reason[3] for reason in reasons(result).values()] == ["soon", "2024-13-01"]


def test_a_naive_bound_is_compared_with_naive_times(tiny: TinyProject) -> None:
    asked = contract(tiny, schema(c="pd.Timestamp = pa.Field(ge=pd.Timestamp('2024-01-01'))"))
    batch = rows(c=pa.array(["2023-12-31", "2024-01-01"]).cast(pa.timestamp("ns")))
    assert list(reasons(asked.validate(batch, is_text=False))) == [0]
    assert list(reasons(asked.validate(texts(batch), is_text=True))) == [0]


def test_nanoseconds_are_rounded_and_large_integers_become_floats(tiny: TinyProject) -> None:
    asked = contract(tiny, schema(c="pd.Timestamp", x="pa.Float32"))
    batch = rows(c=pa.array([1, 1_001], pa.timestamp("ns")), x=pa.array([20_000_000, 16_777_217]))
    result = asked.validate(batch, is_text=False)
    assert result.rejected == {}
    assert [value.value for value in result.accepted["c"]] == [0, 1]
    assert result.accepted["x"].to_pylist() == [20_000_000.0, 16_777_216.0]


def test_a_hexadecimal_number_is_no_integer(tiny: TinyProject) -> None:
    result = contract(tiny, schema()).validate(texts(rows(n=["0x10", "+7", "-0X1", "010"])), is_text=True)
    assert reasons(result) == {
        0: ("schema", "is_int64", "n", "0x10"),
        1: ("schema", "is_int64", "n", "+7"),
        2: ("schema", "is_int64", "n", "-0X1"),
    }
    assert result.accepted["n"].to_pylist() == [10]


def test_a_class_that_pandera_refuses_is_an_error_that_names_it(tiny: TinyProject) -> None:
    with pytest.raises(ContractError, match="schema:Rows is not a schema: "):
        contract(tiny, f"{schema()}\n@pa.check('nowhere')\ndef good(cls, series):\n    return series > 0")


# coerce

SOURCES: dict[str, tuple[pa.DataType, st.SearchStrategy[object]]] = {
    "int": (pa.int64(), st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)),
    "float": (pa.float64(), st.integers(-300, 300).map(float) | st.floats(-3, 3) | st.sampled_from([1e16, 0.1, -0.0])),
    "bool": (pa.bool_(), st.booleans()),
    "text": (
        pa.string(),
        st.sampled_from(["1", "-7", "360", "360.0", "0.5", "1e2", "x", "", "True", "2024-03-04 10:00"]),
    ),
    "day": (pa.date32(), st.dates(datetime(1970, 1, 1).date(), datetime(2200, 1, 1).date())),  # noqa: DTZ001
}
TARGETS = {"int": "int", "small": "pa.Int8", "float": "float", "str": "str", "bool": "bool", "time": "pd.Timestamp"}
LOOSER = {
    ("float", "int"): "cuts off fractions",
    ("float", "small"): "cuts off fractions, and wraps around",
    ("int", "small"): "wraps around",
    ("int", "bool"): "takes any number for True",
    ("float", "bool"): "takes any number for True",
    ("text", "bool"): "takes any text for True",
}
"""Where pandera coerces what is not exactly of the type; there it is a rejected row."""
STRICTER = {("text", "int"): "360.0", ("text", "small"): "360.0"}
"""Where it refuses text that pandas would have read as a float from the file."""


def alone_with_pandera(schema: DataFrameSchema, name: str, cell: pa.Array) -> tuple[bool, object]:
    """Whether pandera accepts a row with that cell, and the value that it makes of it."""
    value = cell.to_pandas()
    try:
        coerced = schema.select_columns([name]).validate(pd.DataFrame({name: value}))[name].iloc[0]
    except (pandera.errors.SchemaError, pandera.errors.SchemaErrors):
        return False, None
    return True, coerced


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_what_is_coerced_is_what_pandera_makes_of_each_row(tiny: TinyProject, source: str, target: str) -> None:
    if source == "day" and target != "time":
        return
    how = "class Config:\n    coerce = True" if target in ("int", "str") else "z: KIND = pa.Field(coerce=True)"
    kind, cells = SOURCES[source]
    fields = f"{schema()}\n{how}" if "KIND" in how else f"{schema()}\nz: KIND\n{how}"
    asked = contract(tiny, fields.replace("KIND", TARGETS[target]))
    alone = tiny.pipeline.load("schema:Rows").to_schema()
    form = pa.schema([("z", kind)])
    if (source, target) in {("int", "time"), ("float", "time"), ("bool", "time")}:
        with pytest.raises(ContractError, match=r"column z is .* expects timestamp"):
            asked.unexpected(pa.unify_schemas([rows(x=[1.0]).schema, form]), "file", is_text=False)
        return

    @given(values=st.lists(cells, min_size=1, max_size=6))
    @settings(max_examples=10, deadline=None)
    def hold(values: list[object]) -> None:
        column = pa.array(values, kind)
        batch = rows(id=[f"k{n}" for n in range(len(values))]).append_column("z", column)
        asked.unexpected(batch.schema, "file", is_text=False)
        result = asked.validate(batch, is_text=False)
        typed, _, _ = casting.cast(column, asked.columns["z"].type, coerce=True)
        for row in range(len(values)):
            accepted, value = alone_with_pandera(alone, "z", column.slice(row, 1))
            if row not in result.rejected:
                mine = typed[row].as_py()
                if accepted:
                    assert mine == (value.tz_localize("UTC") if target == "time" else value), (values[row], mine, value)
                else:
                    assert STRICTER[source, target] and float(str(values[row])) == mine
            elif accepted:
                assert (source, target) in LOOSER, (values[row], value)

    hold()


def test_whole_floats_are_integers_where_the_schema_coerces(tiny: TinyProject) -> None:
    asked = contract(tiny, schema(n="int = pa.Field(coerce=True, nullable=True, ge=12)"))
    cells = [12.0, None, 36.0, 36.5, 11.0]
    expected = {3: ("schema", "is_int64", "n", "36.5"), 4: ("rule", "greater_than_or_equal_to(12)", "n", "11")}
    for batch, is_text in ((rows(n=pa.array(cells)), False), (texts(rows(n=cells)), True)):
        asked.unexpected(batch.schema, "a.parquet", is_text=is_text)
        result = asked.validate(batch, is_text=is_text)
        assert reasons(result) == expected
        assert result.accepted["n"].to_pylist() == [12, None, 36]


def test_a_float_for_an_integer_is_refused_with_the_reason_and_the_way_out(tiny: TinyProject) -> None:
    found = rows(n=[1.0, None]).schema
    with pytest.raises(ContractError) as caught:
        contract(tiny, schema(n="int = pa.Field(nullable=True)")).unexpected(found, "a.parquet", is_text=False)
    assert str(caught.value) == (
        f"a.parquet: column n is double, schema:Rows of {tiny.name} expects int64; upload the file with the "
        "declared type, or change the schema (a missing value turns integers into floats in pandas: write that "
        "column as Int64, or accept whole floats with Field(coerce=True); nullable=True accepts missing values)"
    )


@pytest.mark.parametrize(
    ("kind", "cell", "expected"),
    [
        ("int", b" 7.0 ", 7),
        ("int", b"+7", 7),
        ("int", b"7e2", 700),
        ("int", b"7.5", None),
        ("int", b"0x10", None),
        ("int", b"9007199254740993.0", 9007199254740993),
        ("bool", b"1.0", True),
        ("bool", b"2", None),
    ],
)
def test_a_cell_of_text_is_coerced_exactly(tiny: TinyProject, kind: str, cell: bytes, expected: object) -> None:
    asked = contract(tiny, schema(n=f"{kind} = pa.Field(coerce=True)"))
    result = asked.validate(texts(rows(n=[1, 1])).set_column(3, "n", pa.array([b"1", cell])), is_text=True)
    assert result.accepted["n"].to_pylist()[1:] == ([] if expected is None else [expected])
    assert list(result.rejected) == ([1] if expected is None else [])


def test_names_of_files_and_columns_with_line_breaks_stay_on_their_line(tiny: TinyProject) -> None:
    with pytest.raises(ContractError) as caught:
        contract(tiny, schema()).unexpected(pa.schema([("no\nte", pa.binary())]), "a\nb.csv", is_text=True)
    assert "\n" not in str(caught.value) and r"a\u000ab.csv has no column" in str(caught.value)
