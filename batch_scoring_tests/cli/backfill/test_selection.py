"""Which days a backfill runs, and why."""

import io
import itertools
import re
import shutil
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.cli.backfill import run_days
from batch_scoring.cli.backfill.selection import Wanted
from batch_scoring.cli.main import main
from batch_scoring_tests.backfills import DAYS, FAILED, STALE, break_input, endings, land, runs_of, score, shown, within
from batch_scoring_tests.decided import by_rules, changed, customers, keys, with_decisions
from batch_scoring_tests.tiny import SCHEMA, TinyProject


def test_stale_days_are_those_of_the_check_and_then_there_are_none(tiny: TinyProject) -> None:
    land(tiny, *DAYS[:3])
    assert score(tiny, within(DAYS[0], DAYS[1])) == (0, dict.fromkeys(DAYS[:2], "scored"))
    tiny.land(DAYS[1], tiny.rows(65))
    assert shown(tiny, STALE) == {DAYS[1]: "stale: input"}, "the third has never been scored, and is not stale"
    tiny.deliver("v2", seed=1)
    assert shown(tiny, STALE) == {DAYS[0]: "stale: model", DAYS[1]: "stale: model, input"}
    assert shown(tiny, Wanted(date(2024, 3, 2), None, stale=True)).keys() == {DAYS[1]}
    assert shown(tiny, Wanted(None, date(2024, 3, 1), stale=True)).keys() == {DAYS[0]}
    assert score(tiny, STALE) == (0, dict.fromkeys(DAYS[:2], "scored"))
    assert {tiny.published_day("predictions", day).model_version for day in DAYS[:2]} == {"v2"}
    out = io.StringIO()
    assert run_days.score(tiny.pipeline, STALE, out) == 0
    assert re.fullmatch(rf"nothing to do: no day of {tiny.name} from 2024-03-01 to \S+ is stale\n", out.getvalue())


def test_stale_days_without_landing_files_are_scored_from_their_features_if_these_are_of_the_code_in_force(
    tiny: TinyProject,
) -> None:
    land(tiny, DAYS[0])
    assert score(tiny, within(DAYS[0], DAYS[0]))[0] == 0
    shutil.rmtree(Path(tiny.pipeline.landing.uri, f"dt={DAYS[0]}"))
    validated = tiny.published_day("validated_features", DAYS[0])
    tiny.deliver("v2", seed=1)
    assert shown(tiny, STALE) == {DAYS[0]: "stale: model; its landing files are gone: its features are scored again"}
    assert score(tiny, STALE) == (0, {DAYS[0]: "scored"})
    assert tiny.published_day("predictions", DAYS[0]).model_version == "v2"
    assert tiny.published_day("validated_features", DAYS[0]) == validated
    tiny.write_code(schema=(tiny.folder / "schema.py").read_text() + "\n# another one\n")
    (why,) = shown(tiny, STALE).values()
    assert why.startswith("stale: code; cannot be run: its landing files are gone") and "land the files again" in why
    out = io.StringIO()
    assert run_days.score(tiny.pipeline, STALE, out) == 1
    assert endings(out.getvalue()) == {DAYS[0]: "failed"} and f"  {DAYS[0]}  {why}\n" in out.getvalue()


def test_days_that_a_blocking_check_stopped_are_found_with_an_empty_instance(tiny: TinyProject) -> None:
    land(tiny, DAYS[0], DAYS[2])
    break_input(tiny, DAYS[1])
    break_input(tiny, DAYS[3])
    assert score(tiny, within(DAYS[0], DAYS[3]))[0] == 1
    shutil.rmtree(Path(tiny.pipeline.landing.uri, f"dt={DAYS[3]}"))
    (said,) = shown(tiny, FAILED).items()
    stopped = tiny.state.checks("raw_input", DAYS[1])
    assert stopped is not None and said[0] == DAYS[1], "the fourth day failed, but nothing lies there any more"
    assert said[1].startswith(f"failed: run {stopped.run_id[:8]}, {tiny.name}/raw_input: input_is_complete: ")
    land(tiny, DAYS[1])
    assert score(tiny, FAILED) == (0, {DAYS[1]: "scored"})
    assert shown(tiny, FAILED) == {}


def test_days_whose_last_run_failed_otherwise_are_found_until_they_are_settled(
    tiny: TinyProject, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(tiny, *DAYS[:2])
    network = (tiny.folder / "network.py").read_text()
    monkeypatch.setenv("DAGSTER_HOME", home)
    tiny.write_code(network=f"raise RuntimeError('no licence')\n{network}")
    assert score(tiny, within(DAYS[0], DAYS[0])) == (1, {DAYS[0]: "failed"})
    tiny.write_code(network=network)
    with dg.DagsterInstance.get() as instance:
        tiny.run(DAYS[0], steps=["model", "raw_input"], instance=instance)
        before = runs_of(instance)
        found = shown(tiny, FAILED)
        assert runs_of(instance) == before
    assert found.keys() == {DAYS[0]}, "the second day never ran; what the first one's steps do alone mends nothing"
    assert re.match(rf"failed: run \w{{8}}, {tiny.name}/model: .*no licence", found[DAYS[0]])
    monkeypatch.delenv("DAGSTER_HOME")
    emptied = shown(tiny, FAILED)
    assert emptied.keys() == {DAYS[0]}, "the state has a record of it, also for an instance that was emptied"
    assert re.match(rf"failed: run \w{{8}}, {tiny.name}/model: .*no licence", emptied[DAYS[0]])
    tiny.run(DAYS[0])
    monkeypatch.setenv("DAGSTER_HOME", home)
    assert shown(tiny, FAILED) == {}, "it is settled, though this instance has not heard of it"


def test_stale_and_failed_days_together(tiny: TinyProject) -> None:
    land(tiny, *DAYS[1:4])
    assert score(tiny, within(DAYS[1], DAYS[1]))[0] == 0
    break_input(tiny, DAYS[1])
    break_input(tiny, DAYS[2])
    assert score(tiny, within(DAYS[1], DAYS[2]))[0] == 1
    both = Wanted(stale=True, failed=True)
    found = shown(tiny, both)
    assert found.keys() == {DAYS[1], DAYS[2]}
    assert found[DAYS[1]].startswith("failed: run ") and found[DAYS[1]].endswith("; stale: input")
    assert "stale:" not in found[DAYS[2]]
    assert shown(tiny, Wanted(date(2024, 3, 3), None, stale=True, failed=True)).keys() == {DAYS[2]}
    land(tiny, DAYS[2])
    assert score(tiny, both) == (1, {DAYS[1]: "failed", DAYS[2]: "scored"})


def test_a_dry_run_of_a_range_says_of_each_day_what_a_run_would_find(tiny: TinyProject) -> None:
    land(tiny, *DAYS[:4])
    assert score(tiny, within(DAYS[0], DAYS[2]))[0] == 0
    tiny.land(DAYS[1], tiny.rows(65))
    shutil.rmtree(Path(tiny.pipeline.landing.uri, f"dt={DAYS[2]}"))
    break_input(tiny, DAYS[4])
    assert score(tiny, within(DAYS[4], DAYS[4]))[0] == 1
    found = shown(tiny, within(DAYS[0], DAYS[5]))
    assert found.pop(DAYS[4]).startswith("failed: run ")
    assert found == {
        DAYS[0]: "up to date: nothing would be written",
        DAYS[1]: "stale: input",
        DAYS[2]: "its landing files are gone; its scores are kept",
        DAYS[3]: "landed, never scored",
        DAYS[5]: "no file has landed",
    }
    tiny.write_code(schema=SCHEMA + "\n# a deploy\n")
    assert shown(tiny, within(DAYS[0], DAYS[0])) == {DAYS[0]: "stale: code"}
    tiny.run(DAYS[0], steps=["raw_input", "validated_features"])
    tiny.write_code(schema=SCHEMA)
    assert shown(tiny, within(DAYS[0], DAYS[0])) == {DAYS[0]: "scored, and changed since"}


def test_a_bundle_that_cannot_be_read_is_one_line_where_days_are_compared_with_it(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    land(tiny, DAYS[0])
    pipeline = tiny.pipeline
    monkeypatch.setattr(run_days, "find_pipeline", lambda _: pipeline)
    Path(pipeline.bundle.uri, "bundle.json").write_text("{")
    assert main(["backfill", tiny.name, "--stale"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and re.match(r"batch-scoring: .*/v1/bundle\.json is not a manifest: .*\n$", said.err)


def test_days_that_were_decided_by_other_rules_are_stale_and_decided_anew_if_asked_for(tiny: TinyProject) -> None:
    with_decisions(tiny)
    for day in DAYS[:2]:
        tiny.land(day, customers(tiny, 60))
    assert score(tiny, within(DAYS[0], DAYS[1])) == (0, dict.fromkeys(DAYS[:2], "scored"))
    assert set(shown(tiny, within(DAYS[0], DAYS[1])).values()) == {"up to date: nothing would be written"}
    shutil.rmtree(Path(tiny.pipeline.landing.uri, f"dt={DAYS[0]}"))
    by_rules(tiny, changed("call", most=3))
    archived = "stale: decisions; its landing files are gone: its features are scored again"
    assert shown(tiny, STALE) == {DAYS[0]: archived, DAYS[1]: "stale: decisions"}
    assert shown(tiny, within(DAYS[1], DAYS[1])) == {DAYS[1]: "stale: decisions"}
    assert score(tiny, STALE) == (0, dict.fromkeys(DAYS[:2], "scored")), "not unchanged: the decisions are others"
    assert [len(keys(tiny, "call", day)) for day in DAYS[:2]] == [3, 3]
    assert shown(tiny, STALE) == {}
    assert score(tiny, within(DAYS[1], DAYS[1])) == (0, {DAYS[1]: "unchanged"})


def test_days_that_were_decided_without_the_days_before_are_stale_and_decided_anew_in_order(tiny: TinyProject) -> None:
    with_decisions(tiny, changed("call", not_within_days=1))
    for day in reversed(DAYS[:3]):
        tiny.land(day, customers(tiny, 60))
        assert tiny.run(day).success
    assert keys(tiny, "call", DAYS[0]) == keys(tiny, "call", DAYS[1]), "neither knew of the other"
    assert shown(tiny, STALE) == dict.fromkeys(DAYS[1:3], "stale: decisions")
    assert shown(tiny, within(DAYS[1], DAYS[1])) == {DAYS[1]: "stale: decisions"}
    assert score(tiny, STALE) == (0, dict.fromkeys(DAYS[1:3], "scored"))
    for before, day in itertools.pairwise(DAYS[:3]):
        assert keys(tiny, "call", day).isdisjoint(keys(tiny, "call", before))
    assert shown(tiny, STALE) == {}
