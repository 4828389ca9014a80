"""What nobody needs goes, and nothing else, from real tables of real runs; time is given, or files are made older."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from deltalake import DeltaTable

from batch_scoring.cli.backfill import selection
from batch_scoring.cli.backfill.selection import Wanted
from batch_scoring.cli.doctor import delta_tables
from batch_scoring.config.spec import Retention
from batch_scoring.daily import freshness
from batch_scoring.daily.publish import DayStep
from batch_scoring.daily.tables import predictions_table, quarantine_table
from batch_scoring.daily.validate import prepare
from batch_scoring.errors import BundleError, NotPublishedError
from batch_scoring.inference.bundle import read_bundle, read_sha256
from batch_scoring.inference.registry import activate, ensure_new_version
from batch_scoring.monitoring.checks.model_checks import examine
from batch_scoring.operations.automation import landing_scan
from batch_scoring.operations.automation.planner import TickState
from batch_scoring.operations.retention import vacuum
from batch_scoring.operations.retention.plan import Limits, limits_of
from batch_scoring.storage import shards
from batch_scoring.storage.delta import Table
from batch_scoring_tests.decided import by_rules, customers, with_decisions
from batch_scoring_tests.reliability.audit import versions
from batch_scoring_tests.reliability.scenarios import score
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject, error_of, run_of_test

WEEK = timedelta(days=7)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyProject:
    tiny = TinyProject(tmp_path)
    tiny.spec["scoring"]["rows_per_shard"] = 20
    tiny.write_spec()
    return tiny


def run(tiny: TinyProject, day: str = DAY) -> None:
    """The steps of a day, with the model that the spec names."""
    pipeline = tiny.pipeline
    activate(pipeline, read_bundle(pipeline.bundle), run_of_test())
    score(pipeline, day, "r")


def limits(**days: int) -> Limits:
    return limits_of(Retention(**days))


def bad_rows(tiny: TinyProject, count: int = 50, start: int = 0):  # noqa: ANN201
    """Good rows, but for one that breaks a rule and one that cannot be scored."""
    x = tiny.rows(count, start)["x"].to_pylist()
    x[3], x[count - 3] = 5000.0, 555.0
    return tiny.rows(count, start).set_column(1, "x", [x])


def later(**delta: float) -> datetime:
    return datetime.now(UTC) + timedelta(**delta)


def files(tiny: TinyProject, place: str = "tables") -> set[str]:
    """All files below the output, the log and locks excepted."""
    root = Path(tiny.pipeline.output.uri)
    return {str(f.relative_to(root)) for f in (root / place).rglob("*") if f.is_file() and "_delta_log" not in f.parts}


def active(tiny: TinyProject) -> set[str]:
    names = ("validated_features", "predictions", "quarantine")
    root = tiny.pipeline.output.uri
    there = [name for name in names if Path(root, "tables", name, "_delta_log").is_dir()]
    return {uri.removeprefix(f"{root}/") for n in there for uri in DeltaTable(f"{root}/tables/{n}").file_uris()}


def age(tiny: TinyProject, days: float, *places: str) -> None:
    """Make files older, or all files that runs have written."""
    root = Path(tiny.pipeline.output.uri)
    written = [*root.glob(".*"), *(f for place in ("tables", "state", "reports") for f in (root / place).rglob("*"))]
    for file in map(root.joinpath, places or [str(f) for f in written if f.is_file()]):
        stamp = file.stat().st_mtime - days * 86400
        os.utime(file, (stamp, stamp))


def swept(tiny: TinyProject, ages: Limits | None = None, now: datetime | None = None) -> vacuum.Swept:
    plan = vacuum.look(tiny.pipeline, ages or limits(), now=now)
    return vacuum.sweep(tiny.pipeline, plan, "r")


# files of the tables


def test_what_was_replaced_goes_a_week_after_it_and_not_before(tiny: TinyProject) -> None:
    tiny.land(DAY, bad_rows(tiny))
    run(tiny)
    first = files(tiny)
    age(tiny, 30)  # the files are old; they are replaced today
    tiny.land(DAY, bad_rows(tiny, start=1000))
    run(tiny)
    assert first.isdisjoint(active(tiny))
    assert swept(tiny).removed == [] and files(tiny) >= first, "a reader may be at them"
    assert swept(tiny, now=later(days=6.9)).removed == []
    rows, done = tiny.read(), swept(tiny, now=later(days=7.1))
    assert {file.path for file in done.removed} == first and done.problems == []
    assert files(tiny) == active(tiny)
    assert tiny.read().equals(rows)


def test_files_that_came_back_stay_and_those_between_go(tiny: TinyProject) -> None:
    """A -> B -> A: the log has removed A's files and has them active."""
    one, other = bad_rows(tiny), bad_rows(tiny, start=1000)
    for rows in (one, other, one):
        tiny.land(DAY, rows)
        os.utime(Path(tiny.pipeline.landing.uri, f"dt={DAY}", "a.parquet"), (1.7e9, 1.7e9))
        run(tiny)
    assert swept(tiny, now=later(days=6)).removed == []
    before = files(tiny)
    done = swept(tiny, now=later(days=8))
    assert files(tiny) == active(tiny) == before - {file.path for file in done.removed}
    assert done.removed
    run(tiny)
    assert tiny.read().num_rows == 48


def test_a_finished_shard_of_a_dead_run_stays_while_a_run_may_take_it_over(tiny: TinyProject) -> None:
    tiny.land(DAY, bad_rows(tiny))
    tiny.run(steps=["model", "raw_input"])
    step = DayStep(tiny.pipeline, DAY, "validated_features")
    prepare(step, step.state.day_input(DAY), run_of_test())
    orphans = files(tiny)
    assert len(orphans) > 3
    age(tiny, shards.REUSE_WITHIN / timedelta(days=1) - 0.1)
    assert swept(tiny).removed == []
    run(tiny)
    used = active(tiny) & orphans
    assert used == orphans, "the run went on from them"
    assert swept(tiny, now=later(days=30)).removed == []


def test_an_orphan_goes_when_it_is_too_old_to_be_taken_over(tiny: TinyProject) -> None:
    tiny.land(DAY, bad_rows(tiny))
    run(tiny)
    tiny.land(NEXT_DAY, bad_rows(tiny))
    tiny.run(NEXT_DAY, ["raw_input"])
    step = DayStep(tiny.pipeline, NEXT_DAY, "validated_features")
    orphans = {
        f"tables/{table}/{file.path}"
        for shard in prepare(step, step.state.day_input(NEXT_DAY), run_of_test()).shards
        for table, held in (("validated_features", [shard.file]), ("quarantine", shard.quarantine))
        for file in held
    }
    age(tiny, 7.1)
    assert {file.path for file in swept(tiny).removed} == orphans
    run(tiny, NEXT_DAY)
    assert tiny.read(NEXT_DAY).num_rows == 48


def test_a_longer_runtime_than_usual_keeps_files_for_longer() -> None:
    assert limits_of(Retention()).superseded == WEEK
    assert limits_of(Retention(), timedelta(days=6)).superseded == timedelta(days=9.5, hours=1)


def test_only_what_a_run_wrote_goes_and_never_the_log(tiny: TinyProject) -> None:
    tiny.land(DAY, bad_rows(tiny))
    run(tiny)
    root = Path(tiny.pipeline.output.uri)
    strangers = [
        "tables/predictions/README.md",
        f"tables/predictions/dt={DAY}/notes.txt",
        "tables/predictions/x.parquet",
    ]
    hidden = [f"tables/predictions/dt={DAY}/_temporary/a.parquet", "tables/predictions/_change_data/a.parquet"]
    leftovers = [f"{place}.{'0af' * 10}12.tmp" for place in ("", "state/", "tables/predictions/")]
    leftovers.append("state/steps/0af/tiny__predictions.plan.began.json")
    for name in (*strangers, *hidden, *leftovers):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    log = set((root / "tables").rglob("_delta_log/*"))
    swept(tiny)
    assert all((root / name).exists() for name in leftovers), "somebody may be writing them"
    age(tiny, 30)
    plan = vacuum.look(tiny.pipeline, limits())
    assert {file.path for file in plan.expired} == set(leftovers)
    assert {file.kind for file in plan.expired} == {"scratch"}
    vacuum.sweep(tiny.pipeline, plan, "r")
    assert all((root / name).exists() for name in (*strangers, *hidden))
    assert not any((root / name).exists() for name in leftovers)
    assert set((root / "tables").rglob("_delta_log/*")) == log


def test_a_checkpoint_does_not_make_it_forget_what_is_to_be_kept_for_longer(tiny: TinyProject) -> None:
    """deltalake's vacuum does: 30 days asked for, removed 20 days ago, gone."""
    tiny.land(DAY, tiny.rows(50))
    run(tiny)
    age(tiny, 40)
    tiny.land(DAY, tiny.rows(50, start=1000))
    run(tiny)
    for log in Path(tiny.pipeline.output.uri, "tables").rglob("_delta_log/*.json"):
        text = log.read_text()
        for line in filter(None, text.splitlines()):
            if moment := json.loads(line).get("remove", {}).get("deletionTimestamp"):
                text = text.replace(str(moment), str(moment - 20 * 86_400_000))
        stamp = log.stat().st_mtime - 20 * 86400
        log.write_text(text)
        os.utime(log, (stamp, stamp))
    delta = predictions_table(tiny.pipeline).load()
    assert delta is not None
    delta.create_checkpoint()
    assert predictions_table(tiny.pipeline).load().vacuum(24 * 30, dry_run=True, full=True)  # type: ignore[union-attr]
    assert vacuum.look(tiny.pipeline, limits(superseded_days=30)).expired == ()
    assert vacuum.look(tiny.pipeline, limits(superseded_days=19)).expired


def test_a_version_that_somebody_restores_between_plan_and_deletion_is_whole(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(50))
    run(tiny)
    rows = tiny.read()
    tiny.land(DAY, tiny.rows(50, start=1000))
    run(tiny)
    age(tiny, 8)
    plan = vacuum.look(tiny.pipeline, limits())
    delta = predictions_table(tiny.pipeline).load()
    assert delta is not None and plan.of("superseded")
    delta.restore(delta.version() - 1)
    done = vacuum.sweep(tiny.pipeline, plan, "r")
    assert {file.path.split("/")[1] for file in done.removed} == {"validated_features"}
    assert tiny.read().equals(rows)


def test_what_is_replaced_while_retention_looks_stays(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.land(DAY, tiny.rows(50))
    run(tiny)
    age(tiny, 30)
    load, before = Table.load, files(tiny)

    def load_late(table: Table) -> DeltaTable | None:
        monkeypatch.undo()
        tiny.land(DAY, tiny.rows(50, start=1000))
        run(tiny)
        return load(table)

    monkeypatch.setattr(Table, "load", load_late)
    assert vacuum.look(tiny.pipeline, limits()).expired == ()
    assert files(tiny) > before and active(tiny).isdisjoint(before)


# never while unsure


@pytest.mark.parametrize("damage", ["torn", "no log", "gap", "unreadable entry", "forbidden"])
def test_nothing_of_a_table_goes_while_its_log_or_listing_cannot_be_read(tiny: TinyProject, damage: str) -> None:
    tiny.land(DAY, tiny.rows(50))
    run(tiny)
    for start in (1000, 2000, 3000):
        tiny.land(DAY, tiny.rows(50, start=start))
        run(tiny)
    log = Path(tiny.pipeline.output.uri, "tables/predictions/_delta_log")
    entries = sorted(log.glob("*.json"))
    age(tiny, 30)
    for entry in entries[-2:]:
        os.utime(entry)
    delta = predictions_table(tiny.pipeline).load()
    assert delta is not None
    if damage == "torn":
        entries[-1].write_bytes(entries[-1].read_bytes()[:-20])
    elif damage == "no log":
        log.rename(log.parent / "_elsewhere")
    elif damage == "gap":  # a checkpoint hides it from readers
        delta.create_checkpoint()
        entries[-2].unlink()
    elif damage == "unreadable entry":
        delta.create_checkpoint()
        entries[-2].write_text("{")
    else:
        (log.parent / f"dt={DAY}" / "below").mkdir()
        (log.parent / f"dt={DAY}" / "below").chmod(0)
        if os.access(log.parent / f"dt={DAY}" / "below", os.R_OK):
            pytest.skip("this user may read anything")
    before = files(tiny, "tables/predictions")
    done = swept(tiny)
    assert files(tiny, "tables/predictions") == before
    (problem,) = done.problems
    assert problem.startswith("table predictions: ") and "<unknown>" not in problem
    assert problem.endswith("; nothing more of it was removed, the next pass tries again")
    assert {file.path.split("/")[1] for file in done.removed} == {"validated_features"}, "the others' goes"


def test_nothing_goes_when_the_log_vanishes_between_plan_and_deletion(tiny: TinyProject) -> None:
    for start in (0, 1000):
        tiny.land(DAY, tiny.rows(50, start))
        run(tiny)
    age(tiny, 8)
    plan, before = vacuum.look(tiny.pipeline, limits()), files(tiny)
    for log in Path(tiny.pipeline.output.uri, "tables").glob("*/_delta_log"):
        log.rename(log.parent / "_elsewhere")
    done = vacuum.sweep(tiny.pipeline, plan, "r")
    assert done.removed == [] and len(done.problems) == 2 and "no log any more" in done.problems[0]
    assert {file for file in files(tiny) if "_elsewhere" not in file} == before


def test_a_damaged_account_or_bundle_keeps_every_model(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(50))
    for version in ("v1", "v2", "v3"):
        tiny.deliver(version, seed=int(version[1]))
        run(tiny)
    age(tiny, 400)
    published_day = Path(tiny.pipeline.output.uri, f"state/dt={DAY}/predictions.json")
    text = published_day.read_text()
    published_day.write_text("{")
    pipeline, ages = tiny.pipeline, limits(models_days=30)
    plan = vacuum.look(pipeline, ages, now=later(days=60))
    assert not plan.of("models") and "predictions.json is damaged" in plan.problems[0]
    published_day.write_text(text)
    Path(pipeline.bundle.uri, "bundle.json").rename(tiny.folder / "elsewhere")
    plan = vacuum.look(pipeline, ages, now=later(days=60))
    assert not plan.of("models") and "there is no" in plan.problems[0]


# the clock


def test_nothing_goes_by_a_clock_that_is_doubted(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(50))
    run(tiny)
    tiny.land(DAY, tiny.rows(50, start=1000))
    run(tiny)
    before = files(tiny)
    for now, doubt in (
        (later(days=32), "nothing was published for 32 days"),
        (later(days=-2), "which is in the future"),
    ):
        plan = vacuum.look(tiny.pipeline, limits(), now=now)
        assert doubt in plan.doubts[0]
        done = vacuum.sweep(tiny.pipeline, plan, "r")
        assert done.removed == [] and "nothing was removed, the clock is in doubt" in done.problems[0]
        assert files(tiny) == before
    plan = vacuum.look(tiny.pipeline, limits(), now=later(days=32))
    assert vacuum.sweep(tiny.pipeline, plan, "r", clock_is_right=True).removed
    assert files(tiny) == active(tiny)


def test_the_stores_own_time_is_what_counts(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.land(DAY, tiny.rows(50))
    run(tiny)
    monkeypatch.setattr(vacuum, "store_time", lambda _: later(days=3))
    assert "this machine's clock says" in vacuum.look(tiny.pipeline, limits()).doubts[0]
    monkeypatch.undo()
    assert abs(vacuum.store_time(tiny.pipeline.output).timestamp() - time.time()) < 5
    assert not vacuum.look(tiny.pipeline, limits()).doubts


# pages


def test_pages_of_old_days_go_and_the_months_stay(tiny: TinyProject) -> None:
    output, old, new = tiny.pipeline.output, "2023-01-01", later().date().isoformat()
    pages = [f"reports/dt={day}/{name}.html" for day in (old, new) for name in ("drift", "trailing")]
    kept = ["reports/month=2023-01.html", "reports/dt=odd/drift.html", f"reports/dt={old}/notes.txt"]
    for path in (*pages, *kept):
        output.put(path, b"x")
    drawn_today = f"reports/dt={old}/predictions.html"
    assert vacuum.look(tiny.pipeline, limits()).expired == (), "kept for ever as shipped"
    age(tiny, 31)
    output.put(drawn_today, b"x")
    done = swept(tiny, limits(reports_days=30))
    assert {file.path for file in done.removed} == set(pages[:2])
    assert files(tiny, "reports") == {*pages[2:], *kept, drawn_today}


# samples


def test_samples_of_old_days_go_and_the_days_documents_stay(tiny: TinyProject) -> None:
    output, old, new = tiny.pipeline.output, "2023-01-01", later().date().isoformat()
    samples = [f"state/dt={day}/sample.parquet" for day in (old, new)]
    for path in (*samples, f"state/dt={old}/drift.json"):
        output.put(path, b"x")
    assert vacuum.look(tiny.pipeline, limits()).expired == (), "kept for ever as shipped"
    age(tiny, 31)
    again = "state/dt=2023-01-02/sample.parquet"
    output.put(again, b"x")
    done = swept(tiny, limits(samples_days=30))
    assert [(file.kind, file.path) for file in done.removed] == [("samples", samples[0])]
    assert {samples[1], again, f"state/dt={old}/drift.json"} <= files(tiny, "state")


# failed runs


def test_records_of_failed_runs_go_after_90_days_and_without_a_setting(tiny: TinyProject) -> None:
    output = tiny.pipeline.output
    old, kept, other = (f"state/failures/20230101T000000.000000Z-{name}" for name in ("a.json", "b.json", "notes"))
    output.put(old, b"x")
    output.put(other, b"x")
    age(tiny, 89)
    output.put(kept, b"x")
    assert swept(tiny).removed == []
    age(tiny, 2)
    done = swept(tiny)
    assert [(file.kind, file.path) for file in done.removed] == [("failures", old)]
    assert {kept, other} <= files(tiny, "state")


# the quarantine


def days_back(days: int) -> str:
    return later(days=-days).date().isoformat()


def test_old_quarantined_rows_go_and_the_day_stays_settled(tiny: TinyProject, tmp_path: Path) -> None:
    old, new = days_back(40), days_back(3)
    for day in (old, new):
        tiny.land(day, bad_rows(tiny), age=3600)
        assert tiny.run(day).success
    age(tiny, 35, *(path for path in files(tiny) if f"dt={old}/" in path))
    ages, pipeline = limits(quarantine_days=30), tiny.pipeline
    before = freshness.fingerprints(pipeline, [old, new])
    rows = {day: tiny.read(day) for day in (old, new)}
    assert tiny.read(old, "quarantine").num_rows == 2 and set(before) == {old, new}

    plan = vacuum.look(pipeline, ages)
    assert plan.totals["quarantine"].rows == 2 and plan.totals["quarantine"].files == 2
    taken = vacuum.sweep(pipeline, plan, "my-run")
    assert taken.problems == [] and [file.kind for file in taken.removed] == ["quarantine"] * 2

    assert tiny.read(old, "quarantine").num_rows == 0 and tiny.read(new, "quarantine").num_rows == 2
    assert freshness.fingerprints(pipeline, [old, new]) == before
    assert all(tiny.read(day).equals(rows[day]) for day in (old, new))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        tick = landing_scan.tick(pipeline, instance, TickState.read(None))
        assert tick.looked == 2 and tick.plan.requests == ()
        choices = selection.explain(pipeline, [old], instance)
        assert [choice.why for choice in choices] == ["up to date: nothing would be written"]
        wanted = Wanted(None, None, True, True)
        assert selection.choose(pipeline, [old, new], wanted, instance) == []
    assert examine(pipeline).bundle is not None
    delta = quarantine_table(pipeline).load()
    assert delta is not None
    (entry,) = delta.history(1)
    assert (entry["run_id"], entry["rows_removed"]) == ("my-run", "2")

    assert vacuum.sweep(pipeline, vacuum.look(pipeline, ages), "again").removed == [], "their files are a week's"
    gone = swept(tiny, ages, now=later(days=7.5))
    assert {file.path for file in gone.removed} == {file.path for file in taken.removed}
    assert {file.kind for file in gone.removed} == {"superseded"}


@pytest.mark.parametrize("files_are_gone", [False, True])
def test_a_later_run_of_such_a_day_writes_nothing_unless_it_has_changed(
    tiny: TinyProject, files_are_gone: bool
) -> None:
    old = days_back(40)
    tiny.land(old, bad_rows(tiny))
    run(tiny, old)
    age(tiny, 35, *files(tiny))
    ages, rows = limits(quarantine_days=30), tiny.read(old)
    swept(tiny, ages)
    if files_are_gone:
        assert len(swept(tiny, ages, now=later(days=7.5)).removed) == 2
    before = versions(tiny.pipeline)
    run(tiny, old)
    assert versions(tiny.pipeline) == before and tiny.read(old, "quarantine").num_rows == 0
    # a late file: the shards whose rejected rows are gone are validated and scored again, their rows are back
    tiny.land(old, tiny.rows(10, start=500), "late.parquet")
    run(tiny, old)
    assert tiny.read(old, "quarantine").num_rows == 2
    unchanged = tiny.read(old).slice(0, rows.num_rows)
    assert unchanged.equals(rows), "the published shards are taken over"
    assert set(freshness.fingerprints(tiny.pipeline, [old])) == {old}
    assert swept(tiny, ages).removed == [], "and there they stand for as long again"
    # and somebody's deletion is still put right
    delta = quarantine_table(tiny.pipeline).load()
    assert delta is not None
    delta.delete("stage = 'rule'")
    run(tiny, old)
    assert tiny.read(old, "quarantine").num_rows == 2


def test_old_features_and_decisions_go_and_the_day_stays_published(tiny: TinyProject) -> None:
    with_decisions(tiny)
    old, new = days_back(140), days_back(3)
    for day in (old, new):
        tiny.land(day, customers(tiny, 40), age=3600)
        assert tiny.run(day).success
    age(tiny, 130, *(path for path in files(tiny) if f"dt={old}/" in path))
    tiny.spec["retention"] = {"features_days": 30, "decisions_days": 100}
    tiny.write_spec()
    pipeline, scores = tiny.pipeline, tiny.read(old)
    ages = limits_of(pipeline.spec.retention)
    before = freshness.fingerprints(pipeline, [old, new])
    assert set(before) == {old, new}
    taken = vacuum.sweep(pipeline, vacuum.look(pipeline, ages), "my-run")
    assert taken.problems == []
    assert [(file.kind, file.rows) for file in taken.removed] == [("features", 20), ("features", 20), ("decisions", 40)]
    for table in ("validated_features", "decisions"):
        with pytest.raises(NotPublishedError):
            tiny.read(old, table)
        assert tiny.read(new, table).num_rows == 40
    assert tiny.read(old).equals(scores)

    assert freshness.fingerprints(pipeline, [old, new]) == before, "no sensor runs it again"
    days, _ = delta_tables._published_days(pipeline)
    assert delta_tables._mismatches(pipeline, days) == [], "doctor knows"
    gone = swept(tiny, ages, now=later(days=7.5))
    assert {file.path for file in gone.removed} == {file.path for file in taken.removed}
    commits = versions(pipeline)
    assert tiny.run(old).success
    assert versions(pipeline) == commits, "a repeated run commits nothing"

    tiny.deliver("v2", seed=4)
    assert freshness.stale_days(pipeline, read_sha256(tiny.pipeline.bundle)).by_reason == {"model": [new]}
    said = f"retention has removed the features of {tiny.name} {old} (features_days in the spec); what is published"
    assert said in error_of(tiny.run(old, raise_on_error=False))
    assert tiny.read(old).equals(scores)
    by_rules(tiny, {"actions": {"fax": {}}})
    assert said in error_of(tiny.run(old, ["decisions"], raise_on_error=False))


def test_a_day_scored_today_keeps_its_quarantine_however_old_it_is(tiny: TinyProject) -> None:
    tiny.land(DAY, bad_rows(tiny))
    run(tiny)
    assert vacuum.look(tiny.pipeline, limits(quarantine_days=1)).expired == ()


def test_the_quarantines_commit_is_planned_again_when_it_was_overtaken(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = days_back(40), days_back(39)
    tiny.land(old, bad_rows(tiny))
    run(tiny, old)
    age(tiny, 35, *files(tiny))
    plan = vacuum.look(tiny.pipeline, limits(quarantine_days=30))
    commit, calls = vacuum._commit_without, []

    def overtaken(*arguments: object) -> None:
        calls.append(None)
        if len(calls) == 1:
            tiny.land(new, bad_rows(tiny))
            run(tiny, new)
        commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(vacuum, "_commit_without", overtaken)
    assert len(vacuum.sweep(tiny.pipeline, plan, "r").removed) == 2
    assert len(calls) == 2
    assert tiny.read(old, "quarantine").num_rows == 0 and tiny.read(new, "quarantine").num_rows == 2
    assert vacuum.sweep(tiny.pipeline, plan, "r").removed == [], "another one that had the same plan"


# models


def test_weights_go_that_no_recent_day_was_scored_with_and_the_names_stay(tiny: TinyProject) -> None:
    shas, state = [], tiny.state
    for number, day in enumerate((DAY, NEXT_DAY, "2024-03-06", "2024-03-07"), start=1):
        shas.append(tiny.deliver(f"v{number}", seed=number))
        tiny.land(day, tiny.rows(50))
        run(tiny, day)

    def held() -> dict[str, set[str]]:
        found = {sha: {file.path for file in state.models.subfolder(sha).list()} for sha in shas}
        return found

    whole = held()
    now = later(days=100)
    age(tiny, 0)
    assert vacuum.look(tiny.pipeline, limits(), now=now).of("models") == [], "kept for ever as shipped"
    ages = limits(models_days=90)
    assert not vacuum.look(tiny.pipeline, ages, now=later(hours=5)).of("models")
    # the spec goes back to v3; v2's day was scored yesterday
    tiny.spec["model"]["bundle"] = f"{tiny.name}/models/v3"
    tiny.write_spec()
    published_day = tiny.published_day("predictions", NEXT_DAY)
    state.put_published_day(published_day.model_copy(update={"finished_at": now - timedelta(days=1)}))
    plan = vacuum.look(tiny.pipeline, ages, now=now)
    done = vacuum.sweep(tiny.pipeline, plan, "r", clock_is_right=True)
    assert {file.path.split("/")[2] for file in done.removed if file.kind == "models"} == {shas[0]}
    assert held() == {**whole, shas[0]: {"bundle.json"}}
    # one version is one model, as before
    tiny.deliver("v1", seed=77)
    with pytest.raises(BundleError, match="version v1 was active before with other content"):
        ensure_new_version(tiny.pipeline, read_bundle(tiny.pipeline.bundle))
    # and what is activated again is whole
    tiny.deliver("v1", seed=1)
    assert tiny.run(DAY).success
    assert held() == whole
