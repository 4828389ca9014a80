import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from batch_scoring.config.loader import PROJECT, data_root, find_pipeline, load_pipelines, survey_pipelines
from batch_scoring.errors import SpecError, UnknownPipelineError
from batch_scoring_tests.tiny import TinyProject


def test_every_fault_of_every_spec_is_listed_in_one_error(tmp_path: Path) -> None:
    projects = [TinyProject(tmp_path / name) for name in "abc"]
    together = tmp_path / "together"
    for project in projects:
        shutil.copytree(project.folder, together / project.name)
    good, first, second = projects
    first.spec["colour"] = "red"
    first.spec["partitions"]["timezone"] = "Mars/Olympus"
    first.spec["model"]["bundle"] = "${NOBODY_SETS_THIS}"
    first.spec["input"]["key"] = "dt"
    first.spec["features"]["schema"] = "missing:Rows"
    second.spec["scoring"]["batch_rows"] = 1
    second.spec["model"]["network"] = "network:Nett"
    for project in (first, second):
        (together / project.name / "pipeline.yaml").write_text(yaml.safe_dump(project.spec))
    survey = survey_pipelines(together, good.data_root)
    assert [pipeline.name for pipeline in survey.valid] == [good.name]
    shutil.rmtree(together / good.name)
    with pytest.raises(SpecError) as caught:
        load_pipelines(together, good.data_root)
    assert caught.value.errors == survey.errors
    found = [(fault.split(": ")[0].split("/")[-2], fault.split(": ")[1]) for fault in caught.value.errors]
    assert sorted(found) == sorted(
        [(first.name, field) for field in ("colour", "partitions.timezone", "model.bundle", "features.schema")]
        + [(first.name, "input.key")]
        + [(second.name, field) for field in ("scoring.batch_rows", "model.network", "model.bundle")]
    )
    message = str(caught.value)
    assert message.startswith("8 errors in the pipelines' specs:\n  ")
    assert all(fault in message for fault in caught.value.errors)


def test_a_folder_without_any_pipeline_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no pipeline\.yaml in any folder; expected at least one pipeline"):
        load_pipelines(tmp_path)


def test_an_unknown_pipeline_is_answered_with_the_known_ones() -> None:
    known = "customer_churn, flight_delay, support_tickets"
    with pytest.raises(UnknownPipelineError, match=f"no pipeline 'flights'; known pipelines: {known}"):
        find_pipeline("flights")


def test_the_data_root_is_the_environments_or_the_projects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert data_root() == str(PROJECT / "data")
    monkeypatch.setenv("BATCH_SCORING_DATA", "s3://bucket/prefix")
    assert data_root() == "s3://bucket/prefix"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCH_SCORING_DATA", "here")
    assert data_root() == str(tmp_path / "here")


@pytest.mark.parametrize("root", ["gs://bucket", "s3://", "s3:///prefix", "file:///tmp"])
def test_a_data_root_of_another_kind_is_refused(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_SCORING_DATA", root)
    with pytest.raises(SpecError, match=f"BATCH_SCORING_DATA: '{root}'; expected a folder or s3://bucket/prefix"):
        data_root()


def test_dagster_shows_every_fault_and_the_deployment_does_not_start_half(tmp_path: Path) -> None:
    code = tmp_path / "batch_scoring"
    shutil.copytree(PROJECT / "batch_scoring", code, ignore=shutil.ignore_patterns("__pycache__"))
    zones = {"flight_delay": "Mars", "customer_churn": "Venus", "support_tickets": "Pluto"}
    for name, zone in zones.items():
        spec = code / "pipelines" / name / "pipeline.yaml"
        content = yaml.safe_load(spec.read_text())
        content["partitions"]["timezone"] = zone
        spec.write_text(yaml.safe_dump(content))
    validated = subprocess.run(
        [Path(sys.executable).with_name("dagster"), "definitions", "validate", "-m", "batch_scoring.definitions"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "BATCH_SCORING_DATA": str(PROJECT / "data")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = validated.stdout + validated.stderr
    assert validated.returncode == 1
    assert "3 errors in the pipelines' specs" in said
    for name, zone in zones.items():
        wrong = rf"batch_scoring/pipelines/{name}/pipeline\.yaml line \d+: partitions\.timezone: '{zone}': not an IANA"
        assert re.search(wrong, said)


@pytest.mark.parametrize("shared", ["{name}", "{name}/tables", "."])
def test_two_pipelines_never_share_an_output(tiny: TinyProject, tmp_path: Path, shared: str) -> None:
    tiny.write_spec()
    packages = tmp_path / "pipelines"
    shutil.copytree(tiny.folder, packages / tiny.name)
    shutil.copytree(tiny.folder, packages / "zweite")
    spec = {**tiny.spec, "name": "zweite", "output": shared.format(name=tiny.name)}
    (packages / "zweite/pipeline.yaml").write_text(yaml.safe_dump(spec))
    survey = survey_pipelines(packages, tiny.data_root)
    assert [pipeline.name for pipeline in survey.valid] == [tiny.name], "it writes into the folder of its own name"
    [fault] = survey.errors
    assert re.search(r"zweite/pipeline\.yaml line \d+: output: .* expected a folder of its own", fault)
    (packages / tiny.name / "pipeline.yaml").write_text("name: [")
    broken = {one.name: one.errors for one in survey_pipelines(packages, tiny.data_root).broken}
    assert broken["zweite"] == (fault,), "whatever becomes of the other, its tables are not to be had"
    for name in (tiny.name, "zweite"):
        both = {**tiny.spec, "name": name, "output": "elsewhere"}
        (packages / name / "pipeline.yaml").write_text(yaml.safe_dump(both))
    with pytest.raises(SpecError, match="2 errors"):  # nobody knows whose they are
        load_pipelines(packages, tiny.data_root)
    (packages / tiny.name / "pipeline.yaml").write_text(yaml.safe_dump(tiny.spec))
    (packages / "zweite/pipeline.yaml").write_text(yaml.safe_dump({**spec, "output": f"{tiny.name}_2"}))
    assert len(load_pipelines(packages, tiny.data_root)) == 2


def test_a_spec_of_another_name_is_a_fault(tiny: TinyProject) -> None:
    tiny.write_spec()
    other = tiny.folder / "pipeline.yml"
    other.write_text("name: x")
    try:
        with pytest.raises(SpecError, match=r"pipeline\.yml: not the name of a spec; rename it to pipeline\.yaml"):
            load_pipelines(tiny.packages, tiny.data_root)
    finally:
        other.unlink()
