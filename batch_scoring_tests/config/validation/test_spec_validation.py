from pathlib import Path

import pytest

from batch_scoring_tests.engineered import engineer, write_features
from batch_scoring_tests.specs import Change, errors_in, put
from batch_scoring_tests.tiny import NETWORK, SCHEMA, TinyProject


@pytest.mark.parametrize("name", ["dt", "prediction", "row_number", "prob_class_7"])
def test_a_column_name_that_the_tables_use_is_refused_wherever_it_stands(tiny: TinyProject, name: str) -> None:
    tiny.write_code(schema=f"class Rows:\n    {name}: int\n    id: str\n    x: float\n")
    tiny.spec["features"] |= {"numeric": ["x", name], "categorical": []}
    [fault] = errors_in(tiny)
    assert fault.startswith(f"features.numeric: {name!r} is a column of our tables; rename it: dt, stage, rule")
    tiny.spec["features"]["numeric"] = ["x"]
    [fault] = errors_in(tiny, put("input", "key", value=name))
    assert fault.startswith(f"input.key: {name!r} is a column of our tables")


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (b"class Rows(:\n", "schema.py line 1 is not valid Python: invalid syntax"),
        (b"class Rows: ...\nreturn\n", "schema.py line 2 is not valid Python: 'return' outside function"),
        (
            b"import os\nfrom nowhere import Base\nclass Rows: ...\n",
            "schema.py line 2 imports nowhere, which is not in",
        ),
        (
            b"from .rules import A\nclass Rows: ...\n",
            "schema.py line 1 imports batch_scoring.pipelines.tiny.rules, whi",
        ),
        (b"# caf\xe9\nclass Rows: ...\n", "schema.py is not valid Python: 'utf-8' codec can't decode"),
        (b"x = 1\n", "schema.py defines no class Rows; its classes: none"),
    ],
)
def test_code_that_does_not_define_the_class_is_a_fault(tiny: TinyProject, source: bytes, fault: str) -> None:
    (tiny.folder / "schema.py").write_bytes(source)
    [found] = errors_in(tiny)
    assert found.startswith(f"features.schema: 'schema:Rows': {fault}")


def test_what_the_packages_own_modules_hold_counts_too(tiny: TinyProject) -> None:
    helper, package = tiny.folder / "rules.py", tiny.folder / "__init__.py"
    try:
        tiny.write_code(schema=f"from .rules import A\n{SCHEMA}")
        helper.write_text("A = 1\nimport nowhere.at_all\n")
        expected = "features.schema: 'schema:Rows': rules.py line 2 imports nowhere.at_all, which is not installed"
        assert errors_in(tiny) == [expected]
        helper.write_text("A = 1\n")
        assert tiny.pipeline.name == tiny.name
        package.write_text("A = (\n")
        assert [fault.split(": ")[2] for fault in errors_in(tiny)] == ["__init__.py line 1 is not valid Python"] * 2
    finally:
        helper.unlink(missing_ok=True)
        package.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("try:\n    import nowhere\nexcept ImportError:\n    nowhere = None\n", id="it may be missing"),
        pytest.param("import sys\nsys.path.append('/opt')\nimport nowhere\n", id="nobody knows where it looks"),
        pytest.param("import os.path\nimport xml.dom.minidom as dom\n", id="it is there"),
    ],
)
def test_a_module_that_may_be_imported_is_no_fault(tiny: TinyProject, source: str) -> None:
    tiny.write_code(schema=source + SCHEMA)
    assert tiny.pipeline.name == tiny.name


def test_libraries_of_another_image_are_not_missed(tiny: TinyProject) -> None:
    tiny.write_code(network=f"import nowhere\n{NETWORK}")
    expected = ["model.network: 'network:Net': network.py line 1 imports nowhere, which is not installed"]
    assert errors_in(tiny) == expected
    tiny.spec["compute"] = {"predictions": {"image": "registry/with-nowhere:1"}}
    tiny.write_spec()
    assert tiny.pipeline.name == tiny.name


def test_a_missing_schema_is_a_fault(tiny: TinyProject) -> None:
    (tiny.folder / "schema.py").unlink()
    assert errors_in(tiny) == ["features.schema: 'schema:Rows': there is no schema.py beside the spec"]


def test_a_column_is_known_by_its_alias(tiny: TinyProject) -> None:
    tiny.write_code(
        schema="""
import pandera.pandas as pa
class Base(pa.DataFrameModel):
    key: str = pa.Field(alias="id")
class Rows(Base):
    x: float
    y: float = pa.Field(alias="Y value")
    n: int
    c: str
"""
    )
    assert errors_in(tiny) == ["features.numeric: 'y' is not a column of schema:Rows; it has x, Y value, n, c, id"]
    tiny.spec["features"]["numeric"] = ["x", "Y value", "n"]
    tiny.write_spec()
    assert tiny.pipeline.spec.features.numeric == ("x", "Y value", "n")


def test_columns_of_a_schema_that_inherits_from_elsewhere_are_left_to_the_run(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    tiny.write_code(schema="from shared import Base\nclass Rows(Base):\n    x: float\n")
    assert tiny.pipeline.spec.input.key == "id"


@pytest.mark.parametrize(
    ("attributes", "fault"),
    [
        (["nowhere"], "'nowhere' is not a column of schema:Rows; it has id, x, y, n, c"),
        (["x"], "'x' is kept already; expected every attribute once, and neither the key nor features"),
        (["id"], "'id' is kept already; expected every attribute once"),
        (["c", "c"], "'c' is kept already; expected every attribute once"),
        (["stage"], "'stage' is a column of our tables; rename it"),
    ],
)
def test_an_attribute_is_a_column_of_the_schema_of_its_own(
    tiny: TinyProject, attributes: list[str], fault: str
) -> None:
    if attributes == ["stage"]:
        tiny.write_code(schema=SCHEMA + "    stage: str\n")
    tiny.spec["features"]["categorical"] = []
    [found] = errors_in(tiny, put("input", "attributes", value=attributes))
    assert found.startswith(f"input.attributes: {fault}")


def test_with_decisions_their_columns_are_taken(tiny: TinyProject) -> None:
    tiny.write_code(schema=SCHEMA + "    score: float\n")
    put("input", "attributes", value=["score"])(tiny.spec)
    tiny.write_spec()
    assert tiny.pipeline.spec.input.attributes == ("score",)
    [found] = errors_in(tiny, put("decisions", value={"actions": {"call": {}}}))
    assert found.startswith("input.attributes: 'score' is a column of our tables; rename it")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (put("features", "transform", value="features"), "features.transform: 'features': string should match pattern"),
        (
            put("features", "transform", value="nothing:transform"),
            "features.transform: 'nothing:transform': there is no nothing.py beside the spec",
        ),
        (
            put("features", "transform", value="features:change"),
            "features.transform: 'features:change': features.py defines no function change; its functions: fit, transf",
        ),
        (
            put("features", "engineered", value="schema:Made"),
            "features.engineered: 'schema:Made': schema.py defines no class Made; its classes: Rows, Engineered",
        ),
        (put("features", "transform", value=None), "features: engineered without transform, which makes the columns"),
        (
            put("features", "numeric", value=["x", "ratios"]),
            "features.numeric: 'ratios' is not a column of schema:Rows or schema:Engineered; it has id, x, y",
        ),
        (put("input", "attributes", value=["ratio"]), "input.attributes: 'ratio' is kept already"),
        (put("input", "key", value="ratio"), "input.key: 'ratio' is also a feature"),
    ],
)
def test_a_transform_and_what_it_makes_are_checked_without_an_import(
    tiny: TinyProject, change: Change, fault: str
) -> None:
    engineer(tiny)
    assert tiny.pipeline.name == tiny.name
    write_features(tiny, (tiny.folder / "features.py").read_text() + "\nraise SystemExit\n")
    assert errors_in(tiny, change)[0].startswith(fault)


def test_without_a_model_of_them_engineered_features_may_have_any_name(tiny: TinyProject) -> None:
    engineer(tiny)
    put("features", "engineered", value=None)(tiny.spec)
    put("features", "numeric", value=["x", "anything"])(tiny.spec)
    tiny.write_spec()
    assert tiny.pipeline.spec.features.inputs == ("x", "anything", "shade")
    assert errors_in(tiny, put("input", "key", value="shades")) == [
        "input.key: 'shades' is not a column of schema:Rows; it has id, x, y, n, c"
    ]
