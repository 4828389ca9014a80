"""The subcommand `failures`: the same figures in words and as JSON, whatever the Dagster instance still knows."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.cli.main import main
from batch_scoring.config import loader
from batch_scoring.storage.state import FailureRecord
from batch_scoring_tests.reliability.proxy import Fault
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject, normalised


@pytest.fixture
def deployed(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TinyProject:
    """The only pipeline that the command sees, and an instance that knows nothing."""
    monkeypatch.setattr(loader.survey_pipelines, "__defaults__", (tiny.packages, None))
    monkeypatch.setenv("BATCH_SCORING_DATA", tiny.data_root)
    home = tmp_path / "emptied"
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return tiny


def fail(tiny: TinyProject, run_id: str, hours: float, failure: str = "storage", **fields: object) -> None:
    """A run that has failed some hours ago."""
    known = {"day": DAY, "step": "predictions", "message": "S3 does not answer"} | fields
    at = datetime.now(UTC) - timedelta(hours=hours)
    record = FailureRecord.model_validate({"run_id": run_id, "failure_class": failure, "at": at, **known})
    tiny.state.put_failure(record)


def test_an_emptied_instance_forgets_nothing(deployed: TinyProject, capsys: pytest.CaptureFixture[str]) -> None:
    deployed.land(DAY, b"PAR1, and no more")
    with dg.DagsterInstance.ephemeral() as instance:
        run_id = deployed.run(instance=instance, raise_on_error=False).run_id
    assert main(["failures", deployed.name, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["pipelines"]
    assert (found["failed"], found["recovered"], found["most_common"]) == (1, 0, "bad_input")
    (run,) = found["runs"]
    assert (run["run_id"], run["day"], run["step"], run["recovered"]) == (run_id, DAY, "raw_input", False)
    assert run["message"].startswith("input_is_complete: ")
    deployed.land(DAY, deployed.rows(12))
    deployed.run()
    assert main(["failures", deployed.name, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["pipelines"]
    assert (found["failed"], found["recovered"], found["recovered_ratio"], found["not_recovered"]) == (1, 1, 1.0, [])


def test_the_command_counts_by_class_and_lists_what_has_not_recovered(
    deployed: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(deployed, "one", 3)
    fail(deployed, "two", 2, message="S3 still does not answer")
    fail(deployed, "three", 1, "sink", step="export_list", export="list", day=NEXT_DAY, message="the sink is full")
    fail(deployed, "four", 1, "superseded")
    fail(deployed, "old", 25)
    assert main(["failures"]) == 0
    said = normalised(capsys.readouterr().out).splitlines()
    assert said[0].startswith("failed runs since 20") and said[0].endswith(" UTC, 24 hours")
    assert said[2].split() == ["pipeline", "failed", "recovered", "superseded", "most", "common"]
    assert said[3].split() == ["tiny", "3", "0%", "1", "storage"]
    assert said[5].split() == ["tiny,", "by", "class", "runs", "recovered", "last"]
    assert said[6].split()[:3] == ["storage", "2", "0"] and said[7].split()[:3] == ["sink", "1", "0"]
    assert said[8].startswith(f"not recovered: {DAY}: storage, 20") and said[8].endswith("2 failed runs, last run two")
    assert said[9] == "  predictions: S3 still does not answer"
    assert said[10].startswith(f"not recovered: {NEXT_DAY}, export list: sink, 20")
    assert said[11] == "  export_list: the sink is full" and len(said) == 12
    assert main(["failures", deployed.name, "--hours", "26", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (found,) = document["pipelines"]
    assert (document["hours"], found["failed"], found["superseded"]) == (26, 4, 1)
    assert found["by_class"]["storage"]["runs"] == 3 and "superseded" not in found["by_class"]
    assert [(left["day"], left["export"], left["runs"], left["run_id"]) for left in found["not_recovered"]] == [
        (DAY, None, 3, "two"),
        (NEXT_DAY, "list", 1, "three"),
    ]
    assert [run["run_id"] for run in found["runs"]] == ["old", "one", "two", "three"]


def test_nothing_failed(deployed: TinyProject, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["failures"]) == 0
    assert normalised(capsys.readouterr().out).splitlines()[3].split() == ["tiny", "0", "-", "0", "-"]


@pytest.mark.s3
def test_a_state_that_cannot_be_read_is_a_problem(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = TinyProject(tmp_path, f"s3://{store.new_bucket()}/data")
    tiny.land(DAY, b"a file, so that the pipeline is there")
    monkeypatch.setattr(loader.survey_pipelines, "__defaults__", (tiny.packages, None))
    monkeypatch.setenv("BATCH_SCORING_DATA", tiny.data_root)
    store.proxy.faults.append(Fault("403", "failures"))
    assert main(["failures"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"problem: {tiny.name}: ")


def test_a_state_that_is_no_folder_is_not_one_without_failures(
    deployed: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed.pipeline.output.put("state", b"a file where a folder belongs")
    assert main(["failures"]) == 1
    assert re.search(rf"^problem: {deployed.name}: .*Not a directory", capsys.readouterr().out, re.MULTILINE)


def test_a_broken_pipeline_has_a_history_too(deployed: TinyProject, capsys: pytest.CaptureFixture[str]) -> None:
    fail(deployed, "one", 1)
    deployed.spec["input"]["keys"] = "misspelt"
    deployed.write_spec()
    assert main(["failures", deployed.name]) == 0
    assert normalised(capsys.readouterr().out).splitlines()[3].split() == ["tiny", "1", "0%", "0", "storage"]


@pytest.mark.parametrize("arguments", [["nobody"], ["--hours", "0"], ["--hours", "2161"], ["--hours", "1.5"]])
def test_a_wrong_command_is_refused(deployed: TinyProject, arguments: list[str]) -> None:
    assert main(["failures", *arguments]) == 2
