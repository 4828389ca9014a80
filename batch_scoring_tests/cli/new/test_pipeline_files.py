"""The files that are written: short, plain, as the project's own linters want them, and read back as what they say."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from batch_scoring.cli.new import pipeline_files
from batch_scoring.cli.new.columns import Roles, tell
from batch_scoring.cli.new.sample import Sample
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
        "network.py": pipeline_files.network(name, roles.label),
        "train.py": pipeline_files.training(name, roles.label),
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


def test_names_that_mean_something_else_are_kept(sampled: Read) -> None:
    sample = sampled(odd_rows(), "odd (1).csv")
    roles = tell(sample, "id", "target", None)
    assert len(roles.features) == len(ODD) + 1
    spec = PipelineSpec.model_validate(yaml.safe_load(pipeline_files.spec("p", roles, sample, "2026-11-29")))
    assert spec.features.names == (*ODD, "word")
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
    for imported in ("config/loader.py", "inference/bundle.py"):  # so that ruff knows them as this project's
        (tmp_path / "batch_scoring" / imported).parent.mkdir()
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


def test_a_regression_has_a_script_of_its_own(telco: tuple[Sample, Roles], sampled: Read) -> None:
    sample = sampled(customers(400))
    roles = tell(sample, None, "MonthlyCharges", None)
    assert roles.label and not roles.label.classes
    text = pipeline_files.training("telco", roles.label)
    assert 'task="regression"' in text and "CLASSES" not in text
    assert 'CLASSES = ["No", "Yes"]' in pipeline_files.training("telco", telco[1].label)  # type: ignore[arg-type]
