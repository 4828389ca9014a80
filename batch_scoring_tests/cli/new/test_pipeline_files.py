"""The files that are written: short, plain, as the project's own linters want them, and read back as what they say."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from batch_scoring.cli.new import pipeline_files
from batch_scoring.cli.new.columns import Roles, tell
from batch_scoring.cli.new.sample import Sample, read
from batch_scoring.cli.new.weights import Weights
from batch_scoring.config.loader import PROJECT
from batch_scoring.config.spec import PipelineSpec
from batch_scoring_tests.cli.new.conftest import Read
from batch_scoring_tests.telco import customers

ODD = ["class", "class_", "Monthly Charges", "validate", "2nd", "größe", 'say "hi"', "yes", "a: b", "x" * 90]
"""Names that Python, pandera or YAML would take for something else."""


def odd_rows() -> list[dict[str, Any]]:
    words = ["plain", 'quo"te', "back\\slash", "um­laut", "# no comment", "{}", "x" * 50]
    return [
        {"id": n} | {name: n % 7 for name in ODD} | {"word": words[n % 7], "target": n % 3, "left\u2028out": n}
        for n in range(70)
    ]


@pytest.fixture
def telco(sampled: Read) -> tuple[Sample, Roles]:
    sample = sampled(customers(400), "telco.csv")
    return sample, tell(sample, None, "Churn", None)


def files(name: str, roles: Roles, sample: Sample) -> dict[str, str]:
    assert roles.label
    return {
        "schema.py": pipeline_files.schema(name, roles, sample),
        "network.py": pipeline_files.network(name, roles),
        "train.py": pipeline_files.training(name, roles.label, roles),
        "pipeline.yaml": pipeline_files.spec(name, roles, sample, "2026-11-29"),
    }


def ruff(command: str, folder: Path) -> str:
    """What ruff complains about."""
    arguments = [sys.executable, "-m", "ruff", *command.split(), "."]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def test_every_line_of_the_schema_says_what_the_sample_has(telco: tuple[Sample, Roles]) -> None:
    sample, roles = telco
    text = pipeline_files.schema("telco", roles, sample)
    for line in (
        "class Telco(pa.DataFrameModel):",
        "    customerID: str  # the key",
        "    gender: str  # Female, Male",
        "    SeniorCitizen: int = pa.Field(ge=0, le=1)  # 0 to 1",
        "    tenure: int = pa.Field(ge=0, le=200)  # 0 to 72",
        "    PaymentMethod: str  # Bank transfer (automatic), Credit card (automatic), …",
    ):
        assert f"{line}\n" in text
    assert "    TotalCharges: float = pa.Field(ge=0, le=20000, nullable=True)  # " in text
    assert "; 11 of 400 missing\n" in text and "Churn" not in text


def test_the_spec_is_what_the_sample_says(telco: tuple[Sample, Roles]) -> None:
    sample, roles = telco
    text = pipeline_files.spec("telco", roles, sample, "2026-11-29")
    assert text.count("# confirm: ") == 2
    spec = PipelineSpec.model_validate(yaml.safe_load(text))
    assert spec.input.key == "customerID" and str(spec.partitions.start) == "2024-01-01"
    assert spec.features.numeric == ("SeniorCitizen", "tenure", "MonthlyCharges", "TotalCharges")
    assert len(spec.features.categorical) == 15
    assert max(map(len, text.splitlines())) <= 100


def test_delimiter_and_missing_words_are_in_the_spec(sampled: Read) -> None:
    rows = [{"id": f"k{n}", "x": "NA" if n == 5 else n % 9, "y": n / 7} for n in range(60)]
    sample = sampled(rows, delimiter=";")
    spec = yaml.safe_load(pipeline_files.spec("p", tell(sample, None, "y", None), sample, "2026-11-29"))
    assert spec["input"]["csv"] == {"delimiter": ";", "null_values": ["", "NA"]}


@pytest.mark.parametrize(
    ("cell", "csv"),
    [('"two\nlines"', {"newlines": True}), ('"a" or "b"', {"quote": "none"}), ("plain", None)],
)
def test_the_dialect_is_in_the_spec(tmp_path: Path, cell: str, csv: dict[str, object] | None) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,x,y\n" + "".join(f"k{n},{n % 3},{cell if n % 2 else 'no'}\n" for n in range(60)))
    sample = read(file)
    spec = yaml.safe_load(pipeline_files.spec("p", tell(sample, None, "y", None), sample, "2026-11-29"))
    assert spec["input"].get("csv") == csv


def test_names_that_mean_something_else_are_kept(sampled: Read) -> None:
    sample = sampled(odd_rows(), "odd (1).csv")
    roles = tell(sample, "id", "target", None)
    assert len(roles.features) == len(ODD) + 1
    spec = PipelineSpec.model_validate(yaml.safe_load(pipeline_files.spec("p", roles, sample, "2026-11-29")))
    assert spec.features.inputs == (*ODD, "word")
    namespace: dict[str, Any] = {}
    exec(pipeline_files.schema("p", roles, sample), namespace)
    assert list(namespace["P"].to_schema().columns) == ["id", *ODD, "word"]
    namespace["P"].validate  # noqa: B018  (still pandera's)


@pytest.mark.parametrize("label", ["Churn", "tenure", "PaymentMethod"])
@pytest.mark.parametrize("name", ["t", "a_pipeline_with_a_name_of_forty_letters_x"[:40]])
def test_the_files_pass_the_linters_of_the_project(tmp_path: Path, sampled: Read, name: str, label: str) -> None:
    sample = sampled(customers(400), "telco.csv")
    folder = tmp_path / "batch_scoring" / "pipelines" / name
    folder.mkdir(parents=True)
    for imported in (
        "config/loader.py",
        "learning/examples.py",
        "training.py",
    ):  # so that ruff knows them as this project's
        (tmp_path / "batch_scoring" / imported).parent.mkdir(exist_ok=True)
        (tmp_path / "batch_scoring" / imported).write_text('"""A module."""\n')
    for file, text in files(name, tell(sample, None, label, None), sample).items():
        (folder / file).write_text(text)
    (tmp_path / "pyproject.toml").write_text((PROJECT / "pyproject.toml").read_text())
    assert ruff("check", tmp_path) == ruff("format --diff", tmp_path) == ""


def test_odd_names_pass_the_linters_too(tmp_path: Path, sampled: Read) -> None:
    sample = sampled(odd_rows(), 'odd """ name.csv')
    for file, text in files("p", tell(sample, "id", "target", None), sample).items():
        (tmp_path / file).write_text(text)
        if file.endswith(".py"):
            ast.parse(text)
    (tmp_path / "pyproject.toml").write_text((PROJECT / "pyproject.toml").read_text())
    assert ruff("format --diff", tmp_path) == ""


def mixed(count: int = 100) -> list[dict[str, Any]]:
    words = ["gold", "free"]
    notes = [f"the parcel {n} has not come yet" for n in range(count)]
    return [
        {"id": f"k{n}", "note": notes[n], "meaning": [n / 7, 1.0], "tier": words[n % 2], "y": n % 3}
        for n in range(count)
    ]


def test_texts_and_vectors_are_declared_as_such(sampled: Read) -> None:
    sample = sampled(mixed(), "mixed.jsonl")
    roles = tell(sample, None, "y", None)
    spec = PipelineSpec.model_validate(yaml.safe_load(pipeline_files.spec("p", roles, sample, "2026-11-29")))
    assert spec.features.text == ("note",) and spec.features.vectors == ("meaning",)
    text = pipeline_files.schema("p", roles, sample)
    assert "    note: str  # text, 7 words on average\n    meaning: list[float]  # 2 numbers\n" in text


PARTS = {
    "both": ((), ["tokens", "vectors"]),
    "texts": (("meaning",), ["tokens"]),
    "vectors": (("note",), ["vectors"]),
    "neither": (("note", "meaning"), []),
}


@pytest.mark.parametrize("case", PARTS)
def test_the_network_has_parts_for_what_there_is(sampled: Read, tmp_path: Path, case: str) -> None:
    dropped, inputs = PARTS[case]
    rows = [{name: value for name, value in row.items() if name not in dropped} for row in mixed()]
    sample = sampled(rows, "mixed.jsonl")
    roles = tell(sample, "id", "y", None)
    namespace: dict[str, Any] = {}
    exec(pipeline_files.network("p", roles), namespace)
    sizes = {"tokens": 9, "vectors": 2}
    network = namespace["Network"](numeric=1, categories=[2], outputs=3, **{name: sizes[name] for name in inputs})
    tensors = {"numeric": torch.tensor([[torch.nan]] * 2), "categorical": torch.tensor([[0], [2]])}
    tensors |= {"tokens": torch.tensor([[0, 0], [8, 0]])} if "tokens" in inputs else {}
    tensors |= {"vectors": torch.tensor([[torch.nan, torch.nan], [1.0, 2.0]])} if "vectors" in inputs else {}
    assert network(**tensors).isfinite().all() and network(**tensors).shape == (2, 3)
    for file, text in files("p", roles, sample).items():
        (tmp_path / file).write_text(text)
    assert ("train_tokenizer" in (tmp_path / "train.py").read_text()) == ("tokens" in inputs)
    (tmp_path / "pyproject.toml").write_text((PROJECT / "pyproject.toml").read_text())
    assert ruff("format --diff", tmp_path) == ""


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"hidden_dims": [64, 32], "dropout": 0.1, "name": "x", "other": None},
        {f"argument_{n}": n for n in range(20)},
    ],
)
def test_the_outline_of_weights_is_in_the_network(sampled: Read, tmp_path: Path, arguments: dict[str, Any]) -> None:
    sample = sampled(odd_rows(), "odd (1).csv")
    roles = tell(sample, "id", "target", None)
    shapes = {"layers.0.weight": (64, 10), "layers.0.bias": (64,), 'odd\n"""name': (), "last.weight": (3, 64)}
    weights = Weights(
        tmp_path / 'a "b" \\.pt', "state_dict", ("ema",), "module.", shapes, ("loss.weight",), arguments, None
    )
    text = pipeline_files.network_of("p", roles, weights)
    assert re.search(r"^#     layers\.0\.weight +\(64, 10\)\n#     layers\.0\.bias +\(64,\)\n", text, re.MULTILINE)
    assert "#     before each name: module.\n" in text and "#     not of the network: loss.weight\n" in text
    assert "float32[rows, 3]." in text
    namespace: dict[str, Any] = {}
    exec(text, namespace)
    with pytest.raises(NotImplementedError, match="put the class of the network"):
        namespace["Network"](**arguments)
    (tmp_path / "network.py").write_text(text)
    (tmp_path / "pyproject.toml").write_text((PROJECT / "pyproject.toml").read_text())
    assert ruff("format --diff", tmp_path) == ""


def test_a_regression_has_a_script_of_its_own(telco: tuple[Sample, Roles], sampled: Read) -> None:
    sample = sampled(customers(400))
    roles = tell(sample, None, "MonthlyCharges", None)
    assert roles.label and not roles.label.classes
    text = pipeline_files.training("telco", roles.label, roles)
    assert 'task="regression"' in text and "CLASSES" not in text
    assert 'CLASSES = ["No", "Yes"]' in pipeline_files.training("telco", telco[1].label, roles)  # type: ignore[arg-type]
