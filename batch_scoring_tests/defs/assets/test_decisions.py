"""Decisions of a day through Dagster: who gets what and why, what a run repeats, and what a mistake leaves standing."""

import shutil
import sys
from collections import Counter
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from batch_scoring.config.names import DAILY_ASSETS
from batch_scoring.daily import freshness
from batch_scoring.daily.tables import decisions_table
from batch_scoring.errors import NotPublishedError
from batch_scoring.inference.bundle import read_sha256
from batch_scoring.operations import failed_runs, run_history
from batch_scoring_tests.decided import RULES, by_rules, changed, customers, keys, reasons, with_decisions
from batch_scoring_tests.reliability.processes import Child, run_elsewhere, site_of
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject, checks, error_of


@pytest.fixture
def project(tiny: TinyProject) -> TinyProject:
    """A pipeline with decisions, and a day that has landed."""
    with_decisions(tiny)
    tiny.land(DAY, customers(tiny, 120))
    return tiny


def metadata(result: dg.ExecuteInProcessResult, asset: str = "decisions") -> dict[str, object]:
    """What a run says of an asset that it has materialised."""
    event = next(e for e in result.get_asset_materialization_events() if e.asset_key and e.asset_key.path[-1] == asset)
    return {
        name: value if isinstance(value, dg.TableMetadataValue) else value.value
        for name, value in event.materialization.metadata.items()
    }


def counted(table: object, column: str) -> dict[object, object]:
    """Rows by the value of a column, of a table in the metadata."""
    assert isinstance(table, dg.TableMetadataValue)
    return {row.data[column]: row.data["rows"] for row in table.records}


def commits(tiny: TinyProject) -> int:
    """Number of commits of the day's decisions."""
    return tiny.published_day("decisions").table.transaction


# what a day's decisions are


def test_every_scored_row_has_one_decision_by_the_rules_and_its_reason(project: TinyProject) -> None:
    result = project.run()
    assert all(checks(result).values())
    decided, scored = project.read(table="decisions"), project.read()
    assert decided["id"].equals(scored["id"])
    assert decided["score"].to_pylist() == pytest.approx(scored["prob_class_1"].to_pylist())
    assert set(decided["model_version"].to_pylist()) == {"v1"}
    counts = Counter(decided["action"].to_pylist())
    assert counts["call"] == 8
    rows = {row["id"]: row for row in customers(project, 120).to_pylist()}
    for key, (action, reason) in reasons(project).items():
        if not rows[key]["consent"]:
            assert (action, reason) == ("none", "ineligible:consent")
        elif rows[key]["x"] >= 9:
            assert (action, reason) == ("none", "ineligible:plausible")
        else:
            assert action in reason or action == "none"
    emails = Counter(rows[key]["region"] for key in keys(project, "email"))
    assert emails == {"north": 5, "south": 5, "east": 5}


def test_the_highest_scores_are_called_and_the_control_is_drawn_from_those_that_would_be(project: TinyProject) -> None:
    project.run()
    rows = project.read(table="decisions").to_pylist()
    ranked = sorted((row for row in rows if row["arm"]), key=lambda row: row["rank"])
    assert [row["rank"] for row in ranked] == list(range(1, len(ranked) + 1))
    assert [row["score"] for row in ranked] == sorted((row["score"] for row in ranked), reverse=True)
    assert {row["arm"] for row in ranked} == {"treated", "control"}
    for row in ranked:
        expected = ("call", "call:taken") if row["arm"] == "treated" else ("none", "call:holdout")
        assert (row["action"], row["reason"]) == expected
    lowest = ranked[-1]["score"]
    assert all(row["score"] <= lowest for row in rows if row["reason"] == "call:over_cap")


def test_rows_that_the_model_could_not_score_have_no_decision(project: TinyProject) -> None:
    rows = customers(project, 120)
    project.land(DAY, rows.set_column(1, "x", pa.array([555.0, 1.0, 555.0] + [1.0] * 117)))
    result = project.run()
    assert checks(result)["decisions/every_row_is_decided"]
    assert len(reasons(project)) == 118
    assert {"k0000000", "k0000002"}.isdisjoint(reasons(project))


@pytest.mark.parametrize("rows_per_shard", [1_000_000, 7])
def test_how_the_day_was_scored_makes_no_difference(project: TinyProject, rows_per_shard: int) -> None:
    project.run()
    expected = reasons(project)
    project.spec["scoring"] |= {"shards": "fan_out", "rows_per_shard": rows_per_shard}
    project.write_spec()
    project.run()
    assert reasons(project) == expected
    assert len(project.published_day("decisions").shards) == 1


def test_the_run_says_how_many_rows_have_which_action_reason_and_arm(project: TinyProject) -> None:
    result = project.run()
    figures, rows = metadata(result), project.read(table="decisions")
    assert counted(figures["actions"], "action") == Counter(rows["action"].to_pylist())
    assert counted(figures["reasons"], "reason") == Counter(rows["reason"].to_pylist())
    assert counted(figures["arms"], "arm") == Counter(arm for arm in rows["arm"].to_pylist() if arm)
    assert (figures["rows"], figures["committed"], figures["model_version"]) == (120, True, "v1")
    said = next(e for e in result.get_asset_check_evaluations() if e.check_name == "caps_hold")
    caps = said.metadata["caps"]
    assert isinstance(caps, dg.TableMetadataValue)
    used = {(row.data["action"], row.data["column"]): (row.data["rows"], row.data["most"]) for row in caps.records}
    assert used == {("call", ""): (8, 8), ("email", "region"): (5, 5)}


# what a run repeats


def test_a_repeated_run_commits_nothing(project: TinyProject) -> None:
    project.run()
    before = project.read(table="decisions")
    figures = metadata(project.run())
    assert (figures["committed"], figures["shards_reused"]) == (False, 1)
    assert project.read(table="decisions").equals(before), "decided_at too"


def test_a_run_that_ended_between_predictions_and_decisions_is_completed(project: TinyProject) -> None:
    project.run(steps=DAILY_ASSETS)
    assert project.read().num_rows == 120
    with pytest.raises(NotPublishedError):
        project.read(table="decisions")
    assert freshness.fingerprints(project.pipeline, [DAY]) == {}, "a sensor runs the day again"
    result = project.run()
    assert metadata(result, "predictions")["committed"] is False
    assert metadata(result)["committed"] is True
    assert freshness.fingerprints(project.pipeline, [DAY]).keys() == {DAY}


def test_the_finished_shard_of_a_run_that_died_before_its_commit_is_taken_over(project: TinyProject) -> None:
    project.run()
    expected = project.read(table="decisions")
    shutil.rmtree(Path(decisions_table(project.pipeline).folder.uri, "_delta_log"))
    Path(project.state._folder.uri, f"dt={DAY}", "decisions.json").unlink()
    figures = metadata(project.run())
    assert (figures["shards_reused"], figures["committed"]) == (1, True)
    assert project.read(table="decisions").equals(expected)


def test_a_corrected_file_is_decided_anew(project: TinyProject) -> None:
    project.run()
    first, called = commits(project), keys(project, "call")
    rows = customers(project, 120)
    consent = [row["consent"] and row["id"] not in called for row in rows.to_pylist()]
    project.land(DAY, rows.set_column(rows.column_names.index("consent"), "consent", pa.array(consent)))
    project.run()
    assert commits(project) == first + 1
    assert not keys(project, "call") & called
    assert {reasons(project)[key] for key in called} == {("none", "ineligible:consent")}


def test_another_model_decides_anew(project: TinyProject) -> None:
    project.run()
    before = keys(project, "call")
    project.deliver("v2", seed=5)
    project.run()
    assert set(project.read(table="decisions")["model_version"].to_pylist()) == {"v2"}
    assert keys(project, "call") != before


# a changed rule


def test_a_changed_rule_makes_days_stale_and_runs_none(project: TinyProject) -> None:
    project.run()
    sha256 = read_sha256(project.pipeline.bundle)
    assert freshness.stale_days(project.pipeline, sha256).by_reason == {}
    by_rules(project, changed("call", most=3))
    assert freshness.stale_days(project.pipeline, sha256).by_reason == {"decisions": [DAY]}
    assert freshness.fingerprints(project.pipeline, [DAY]).keys() == {DAY}, "up to date for the sensors"
    assert len(keys(project, "call")) == 8
    project.land(NEXT_DAY, customers(project, 120))
    result = project.run(NEXT_DAY)
    said = next(e for e in result.get_asset_check_evaluations() if e.check_name == "days_are_current")
    assert said.description == (
        f"stale days: 1 (decisions: {DAY}); run: batch-scoring backfill {project.name} {DAY} {DAY}"
    )
    assert len(keys(project, "call")) == 8 and len(keys(project, "call", NEXT_DAY)) == 3
    project.run()
    assert len(keys(project, "call")) == 3, "if it is asked for"
    assert freshness.stale_days(project.pipeline, sha256).by_reason == {}


def test_a_day_that_was_scored_before_there_were_decisions_is_not_run_again(tiny: TinyProject) -> None:
    with_decisions(tiny)
    del tiny.spec["decisions"]
    tiny.write_spec()
    tiny.land(DAY, customers(tiny, 120))
    tiny.run()
    by_rules(tiny, RULES)
    assert freshness.fingerprints(tiny.pipeline, [DAY]).keys() == {DAY}
    assert freshness.stale_days(tiny.pipeline, read_sha256(tiny.pipeline.bundle)).by_reason == {}
    tiny.run()
    assert len(keys(tiny, "call")) == 8, "unless it is asked for"
    assert freshness.fingerprints(tiny.pipeline, [DAY]).keys() == {DAY}


def test_without_decisions_in_the_spec_a_day_does_not_wait_for_them(project: TinyProject) -> None:
    project.run(steps=DAILY_ASSETS)
    assert freshness.fingerprints(project.pipeline, [DAY]) == {}
    del project.spec["decisions"]
    project.write_spec()
    assert freshness.fingerprints(project.pipeline, [DAY]).keys() == {DAY}


def test_a_run_of_the_whole_day_includes_decisions(project: TinyProject) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        project.run(instance=instance)
        project.run(instance=instance, steps=DAILY_ASSETS)
        project.run(instance=instance, steps=["decisions"])
        runs = run_history.of_day(instance, project.pipeline, DAY)
        assert [run.is_whole for run in runs] == [False, False, True]
        assert runs[-1].code == run_history.current_code(project.pipeline)
        by_rules(project, changed("call", most=3))
        assert runs[-1].code != run_history.current_code(project.pipeline), "a corrected rule is another attempt"


# a function of the pipeline's own


def by_function(body: str) -> dict[str, object]:
    """Rules that call a function with this body, and its code."""
    code = f"""
import pyarrow as pa
import pyarrow.compute as pc

def table(actions, reason):
    return pa.table({{"action": actions, "reason": [reason] * len(actions)}})

def decide(rows, day):
    {body}
"""
    return {"function": "rules:decide", "reasons": ["high", "low"], "actions": {"call": {"most": 8}}, "code": code}


def test_a_function_decides_from_scores_features_and_attributes(project: TinyProject) -> None:
    rules = by_function(
        """
    called = pc.and_(pc.equal(rows["region"], "north"), pc.and_(rows["consent"], pc.greater(rows["x"], 5)))
    action, reason = pc.if_else(called, "call", "none"), pc.if_else(called, "high", "low")
    return pa.table({"action": action, "reason": reason, "rank": pc.if_else(called, 1, None)})
"""
    )
    (project.folder / "rules.py").write_text(str(rules.pop("code")))
    rules["actions"] = {"call": {"most_per": {"region": 30}}}
    by_rules(project, rules)
    assert all(checks(project.run()).values())
    rows = customers(project, 120).to_pylist()
    called = {row["id"] for row in rows if row["region"] == "north" and row["consent"] and row["x"] > 5}
    assert called and keys(project, "call") == called
    assert set(reasons(project).values()) == {("call", "high"), ("none", "low")}
    code = project.pipeline.decisions_code
    with (project.folder / "rules.py").open("a") as file:
        file.write("# another threshold\n")
    assert project.pipeline.decisions_code != code


def test_a_run_that_was_killed_while_it_decided_is_completed_by_the_next(project: TinyProject) -> None:
    rules = by_function("__import__('time').sleep(1)\n    return table(['none'] * len(rows), 'low')")
    (project.folder / "rules.py").write_text(str(rules.pop("code")))
    by_rules(project, rules)
    scored = Path(project.pipeline.output.uri, f"state/dt={DAY}/predictions.json")
    assert Child(site_of(project), [DAY]).go().kill_when(scored.exists, 0.3), "it was at work"
    predictions = project.published_day("predictions")
    assert project.state.published_day("decisions", DAY) is None
    assert freshness.fingerprints(project.pipeline, [DAY]) == {}
    [outcome] = run_elsewhere(site_of(project), DAY)
    assert (outcome.error, outcome.unchanged) == (None, False)
    assert project.published_day("predictions") == predictions
    assert len(reasons(project)) == 120
    assert freshness.fingerprints(project.pipeline, [DAY]).keys() == {DAY}


# mistakes


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (changed("email", where="region > 3"), "decisions.actions.email.where: "),
        (
            {**RULES, "score": "prob_class_7"},
            "decisions.score: the day has no column prob_class_7; expected one of id, ",
        ),
        (by_function("raise ValueError('no')"), "decisions.function: rules:decide raised ValueError: no"),
        (by_function("return rows"), "decisions.function: rules:decide returned no column action, reason; found id, "),
        (
            by_function("return table(['call'] * len(rows), 'high')"),
            "caps_hold: call has 120 rows, expected at most 8; the function exceeds a cap of the spec: correct it",
        ),
        (
            by_function("return table(['none'] * len(rows), 'whim')"),
            "reasons_are_known: 120 rows with reason 'whim', which the spec does not name; name them in decisions, or "
            "correct the function",
        ),
        (
            by_function("return table(['call', *['none'] * (len(rows) - 1)], 'high')"),
            "decisions.function: rules:decide gives the action 'none' for id 'k0000000' and 1 ",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place_and_the_previous_decisions_stand(
    project: TinyProject, rules: dict[str, object], said: str
) -> None:
    project.run()
    before = project.read(table="decisions")
    if code := rules.pop("code", None):
        (project.folder / "rules.py").write_text(str(code))
        sys.modules.pop(f"batch_scoring.pipelines.{project.name}.rules", None)
    by_rules(project, rules)
    result = project.run(raise_on_error=False)
    assert said in error_of(result)
    assert result.dagster_run.tags[failed_runs.TAG] in ("bad_input", "bad_model"), "not tried again as it is"
    assert project.read(table="decisions").equals(before)
    assert project.read().num_rows == 120, "the scores stand, too"


def test_decisions_without_predictions_say_what_to_run_first(project: TinyProject) -> None:
    project.run(steps=["model", "raw_input", "validated_features"])
    result = project.run(steps=["decisions"], raise_on_error=False)
    first = f"run {project.name}/predictions for {DAY} first"
    assert f"{project.name} has no predictions of {DAY}; {first}" in error_of(result)
    project.run()
    project.land(DAY, customers(project, 121))
    project.run(steps=["raw_input"])
    result = project.run(steps=["decisions"], raise_on_error=False)
    assert "come from other files than raw_input has pinned" in error_of(result)


# the days before


def test_a_key_does_not_get_an_action_again_within_some_days(project: TinyProject) -> None:
    """Nor does one of the control group: it would have got it."""
    call = {"at_least": 0.3, "holdout": {"share": 0.25, "salt": "calls"}, "not_within_days": 2}
    by_rules(project, {"actions": {"call": call}})
    for day in (DAY, NEXT_DAY, "2024-03-06", "2024-03-07"):
        project.land(day, customers(project, 120))
        project.run(day)
    first = reasons(project)
    had = {key for key, (_, reason) in first.items() if reason in ("call:taken", "call:holdout")}
    assert had > keys(project, "call") > set()
    for day in (NEXT_DAY, "2024-03-06"):
        assert {key for key, (_, reason) in reasons(project, day).items() if reason == "call:recent"} == had
        assert not keys(project, "call", day)
    assert reasons(project, "2024-03-07") == first, "the days are over"


def test_other_decisions_on_a_day_before_are_another_source(project: TinyProject) -> None:
    by_rules(project, changed("call", not_within_days=2))
    project.land(NEXT_DAY, customers(project, 120))
    project.run()
    project.run(NEXT_DAY)
    had = keys(project, "call")
    assert not had & keys(project, "call", NEXT_DAY)
    assert metadata(project.run(NEXT_DAY))["committed"] is False
    project.land(DAY, customers(project, 40, start=1000))
    project.run()
    assert freshness.fingerprints(project.pipeline, [NEXT_DAY]).keys() == {NEXT_DAY}, "nobody is called back"
    assert metadata(project.run(NEXT_DAY))["committed"] is True
    assert had <= keys(project, "call", NEXT_DAY) | {
        key for key, (_, reason) in reasons(project, NEXT_DAY).items() if reason == "call:holdout"
    }
