"""The subcommand `decide`: what other rules would do, and that it writes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from batch_scoring.cli.main import main
from batch_scoring.config import loader
from batch_scoring_tests.backfills import tree
from batch_scoring_tests.decided import RULES, by_rules, changed, customers, keys, with_decisions
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject, normalised


@pytest.fixture
def decided(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """A decided day, in the only pipeline that the command sees."""
    with_decisions(tiny)
    tiny.land(DAY, customers(tiny, 120))
    tiny.run()
    monkeypatch.setattr(loader, "PIPELINES", tiny.packages)
    monkeypatch.setattr(loader.survey_pipelines, "__defaults__", (tiny.packages, None))
    monkeypatch.setenv("BATCH_SCORING_DATA", tiny.data_root)
    return tiny


def rules(folder: Path, decisions: dict[str, Any]) -> Path:
    """A file with rules to try."""
    file = folder / "try.yaml"
    file.write_text(yaml.safe_dump({"name": "whatever", "decisions": decisions}, sort_keys=False))
    return file


def test_the_counts_are_those_that_a_run_by_these_rules_would_publish(
    decided: TinyProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(Path(decided.data_root))
    other = changed("call", most=3)
    file = rules(tmp_path, other)
    assert main(["decide", decided.name, DAY, "--try", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert tree(Path(decided.data_root)) == before
    assert (said["pipeline"], said["day"], said["rows"]) == (decided.name, DAY, 120)
    assert said["actions"]["call"] == {"published": 8, "tried": 3}
    published = {name: counts["published"] for name, counts in said["reasons"].items() if counts["published"]}
    tried = {name: counts["tried"] for name, counts in said["reasons"].items() if counts["tried"]}
    assert sum(published.values()) == sum(tried.values()) == 120
    assert published == decided.published_day("decisions").shards[0].reasons
    by_rules(decided, other)
    decided.run()
    assert decided.published_day("decisions").shards[0].reasons == tried
    assert len(keys(decided, "call")) == 3


def test_what_is_printed_has_both_counts_and_their_difference(
    decided: TinyProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = rules(tmp_path, {"actions": {"fax": {"at_least": 0.0, "most": 1234}}})
    assert main(["decide", decided.name, DAY, "--try", str(file)]) == 0
    said = normalised(capsys.readouterr().out).splitlines()
    assert said[0] == f"tiny {DAY}: 120 scored rows, by the rules of {normalised(str(file))}"
    assert ["call", "8", "0", "-8"] in [line.split() for line in said]
    assert ["fax", "0", "120", "+120"] in [line.split() for line in said]
    assert ["fax:taken", "0", "120", "+120"] in [line.split() for line in said]
    assert said[-1] == "nothing was written"


def test_a_day_that_is_not_decided_is_tried_all_the_same(
    decided: TinyProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decided.land(NEXT_DAY, customers(decided, 50))
    decided.run(NEXT_DAY, ["model", "raw_input", "validated_features", "predictions"])
    file = rules(tmp_path, RULES)
    assert main(["decide", decided.name, NEXT_DAY, "--try", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["actions"]["call"] == {"published": None, "tried": 8}
    assert main(["decide", decided.name, NEXT_DAY, "--try", str(file)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1] == "the day is not decided: there is nothing to compare with"


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        ("name: x\n", 2, "try.yaml: decisions: missing; expected the section as pipeline.yaml has it"),
        (
            "decisions: {actions: {call: {mostt: 3}}}",
            2,
            "try.yaml: decisions.actions.call.mostt: unknown field; did you mean most?",
        ),
        (
            "decisions: {actions: {call: {where: age > 3}}}",
            1,
            "decisions.actions.call.where: 'age > 3', character 1: no column age",
        ),
        ("decisions: {score: prob_class_9, actions: {call: {}}}", 1, "decisions.score: the day has no column prob_cla"),
        ("[", 2, "try.yaml line 1: is not valid YAML: while parsing a flow node"),
        ("", 2, "try.yaml: is empty; expected a mapping"),
    ],
)
def test_a_mistake_is_one_line(
    decided: TinyProject, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, code: int, said: str
) -> None:
    file = tmp_path / "try.yaml"
    file.write_text(content)
    assert main(["decide", decided.name, DAY, "--try", str(file)]) == code
    assert said in capsys.readouterr().err


def test_a_day_without_scores_says_what_to_run(
    decided: TinyProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["decide", decided.name, NEXT_DAY, "--try", str(rules(tmp_path, RULES))]) == 1
    assert f"{NEXT_DAY} is not scored; run: batch-scoring backfill {decided.name} " in capsys.readouterr().err
