"""A month on a page: the days, checks, rows, scores, distances and speeds of the state, and nothing from elsewhere."""

import io
import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plotly.offline import get_plotlyjs

from batch_scoring.defs.assets.report import gather, months
from batch_scoring.inference.bundle import read_bundle
from batch_scoring.inference.reference_profile import Column, Profile, Scores
from batch_scoring.storage.state import ColumnDrift, DayDrift
from batch_scoring_tests.tiny import TinyProject

MONTH, PAGE = "2024-03-01", "reports/month=2024-03.html"
FINE, QUARANTINED, STOPPED, MISSING, PROMOTED, BROKEN, OVERTAKEN = (
    f"2024-03-{day:02}" for day in (4, 5, 6, 7, 8, 9, 11)
)
VILLAIN = "</script><script>alert(1)</script>"
CHECKS = 17


def draw(tiny: TinyProject, month: str = MONTH) -> dict[str, Any]:
    """Materialise a month, in an instance that knows nothing; the metadata."""
    job = tiny.definitions.resolve_job_def(f"report_{tiny.name}")
    result = job.execute_in_process(
        partition_key=month, run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    )
    (event,) = result.get_asset_materialization_events()
    assert event.asset_key == dg.AssetKey([tiny.name, "report"]) and event.partition == month
    return {name: value.value for name, value in event.materialization.metadata.items()}


def page(tiny: TinyProject, path: str = PAGE) -> str:
    """The page without plotly's own code."""
    return tiny.pipeline.output.read(path).decode().replace(get_plotlyjs(), "")


def chart(tiny: TinyProject, name: str, path: str = PAGE) -> list[dict[str, Any]]:
    """The traces of a chart on the page."""
    (found,) = re.findall(rf'<script type="application/json" data-chart="{name}">(.*?)</script>', page(tiny, path))
    return json.loads(found)["data"]


def series(tiny: TinyProject, name: str) -> dict[str, dict[str, float]]:
    """The values of a chart, by trace and day."""
    return {trace["name"]: dict(zip(trace["x"], trace["y"], strict=True)) for trace in chart(tiny, name)}


def cell(tiny: TinyProject, day: str, row: str) -> tuple[str, str]:
    """Verdict and hover text of a cell of the heat map."""
    (heat,) = chart(tiny, "checks")
    column, line = heat["x"].index(day), heat["y"].index(row)
    assert "failed and stopped the day" in page(tiny)
    verdicts = ["not run", "untested", "passed", "failed", "stopped"]
    return verdicts[heat["z"][line][column]], heat["hovertext"][line][column]


def bad(rows: pa.Table, count: int) -> pa.Table:
    """The rows, of which the first ones break the contract."""
    return rows.set_column(3, "n", pa.array([-1] * count + [1] * (len(rows) - count)))


@pytest.fixture(scope="module")
def march(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    """Days of every kind; the page of their month is drawn."""
    tiny = TinyProject(tmp_path_factory.mktemp("march"))
    tiny.spec["checks"]["categories_are_known"] = {"share": 0.3}
    tiny.write_spec()
    tiny.land(FINE, tiny.rows(100))
    rows = bad(tiny.rows(100), 10)
    beastly = rows.set_column(1, "x", pa.array([1.0] * 50 + [666.0] + [1.0] * 49))
    strange = beastly.set_column(4, "c", pa.array([VILLAIN] * 50 + ["red"] * 50))
    tiny.land(QUARANTINED, strange)
    tiny.land(STOPPED, bad(tiny.rows(7), 7))
    tiny.land(BROKEN, tiny.rows(20).drop_columns(["x"]))
    tiny.land(OVERTAKEN, tiny.rows(30))
    for day in (FINE, QUARANTINED, OVERTAKEN):
        tiny.run(day)
    tiny.land(OVERTAKEN, bad(tiny.rows(30), 30))
    for day in (STOPPED, BROKEN, OVERTAKEN):
        assert not tiny.run(day, raise_on_error=False).success
    tiny.deliver("v2", seed=1)
    tiny.land(PROMOTED, tiny.rows(120))
    tiny.run(PROMOTED)
    draw(tiny)
    return tiny


# the days


def test_the_days_are_counted_by_what_became_of_them(march: TinyProject) -> None:
    found = draw(march)
    counts = {name: value for name, value in found.items() if name.startswith(("days_", "rows_"))}
    assert counts == {
        "days_scored": 3,
        "days_failed": 2,
        "days_unfinished": 1,
        "days_missing": 25,
        "rows_scored": 100 + 89 + 120 + 30,
        "rows_quarantined": 10 + 1,
    }
    assert found["models"] == "v1, v2"
    assert found["summary"] == (
        "31 days: 3 scored, 2 failed, 1 unfinished, 25 missing. 339 rows scored, 11 quarantined (3.14%)."
    )
    assert found["report"] == f"{march.pipeline.output.uri}/{PAGE}"


def test_the_page_says_the_same_in_words(march: TinyProject) -> None:
    shown = page(march)
    assert draw(march)["summary"] in shown
    assert re.search(rf"<h1>{march.name}<span>March 2024</span></h1>", shown)
    assert f"<b>failed</b> {STOPPED}, {OVERTAKEN}: " in shown
    assert f"<b>unfinished</b> {BROKEN}: " in shown
    assert f"<b>missing</b> 2024-03-01 … 2024-03-03, {MISSING}, 2024-03-10, 2024-03-12 … 2024-03-31: " in shown
    assert "<b>model</b> v1, v2" in shown


def test_today_is_not_missing_and_tomorrow_is_not_there(tiny: TinyProject) -> None:
    tiny.land(FINE, tiny.rows(64))
    tiny.run(FINE)
    late = datetime(2024, 3, 5, 23, 59, tzinfo=UTC)
    assert [(day.day, day.status) for day in gather(tiny.pipeline, "2024-03", late, "r").days] == [
        ("2024-03-01", "missing"),
        ("2024-03-02", "missing"),
        ("2024-03-03", "missing"),
        (FINE, "scored"),
    ]
    tiny.spec["partitions"]["timezone"] = "Asia/Tokyo"
    tiny.write_spec()
    assert gather(tiny.pipeline, "2024-03", late, "r").days[-1].day == QUARANTINED, "there it is the 6th already"


def test_a_damaged_document_is_named_and_takes_nothing_else_away(tiny: TinyProject) -> None:
    tiny.land(FINE, tiny.rows(64))
    tiny.run(FINE)
    tiny.pipeline.output.put(f"state/dt={FINE}/checks/raw_input.json", b"{")
    assert draw(tiny)["days_scored"] == 1
    assert re.search(rf"{FINE} is not whole here: .*raw_input\.json is damaged", page(tiny))


# the checks


def test_the_heat_map_has_every_check_and_every_day_that_has_begun(march: TinyProject) -> None:
    (heat,) = chart(march, "checks")
    assert heat["x"] == [f"2024-03-{day:02}" for day in range(1, 32)]
    assert heat["y"][0] == "day" and len(heat["y"]) == len(set(heat["y"])) == CHECKS + 1
    graph = march.definitions.resolve_asset_graph()
    known = {f"{key.asset_key.path[-1]}/{key.name}" for key in graph.asset_check_keys}
    assert set(heat["y"][1:]) == {name for name in known if not name.startswith("model/")}


def test_a_cell_says_how_the_check_went(march: TinyProject) -> None:
    (heat,) = chart(march, "checks")
    column = {row: cell(march, FINE, row)[0] for row in heat["y"]}
    assert set(column.values()) == {"passed", "untested"}
    assert column["day"] == column["predictions/scores_are_probabilities"] == "passed"
    assert column["validated_features/features_match_reference"] == "untested", "the bundle has no profile"
    assert {cell(march, MISSING, row)[0] for row in heat["y"]} == {"not run"}

    assert cell(march, QUARANTINED, "validated_features/categories_are_known")[0] == "failed"
    assert cell(march, QUARANTINED, "day")[0] == "passed", "that check does not stop a day"

    verdict, said = cell(march, STOPPED, "validated_features/some_rows_are_accepted")
    assert verdict == "stopped" and "0 of 7 rows are accepted" in said.replace("<br>", " ")
    assert cell(march, STOPPED, "predictions/rows_are_conserved")[0] == "not run"
    assert cell(march, STOPPED, "day")[0] == "stopped"


def test_a_day_whose_step_raised_is_no_scored_one(march: TinyProject) -> None:
    assert cell(march, BROKEN, "raw_input/input_is_present")[0] == "passed"
    assert cell(march, BROKEN, "day")[0] == "failed"


def test_a_failed_day_keeps_the_rows_of_its_earlier_publication_and_says_so(march: TinyProject) -> None:
    verdict, said = cell(march, OVERTAKEN, "day")
    assert verdict == "stopped" and "what an earlier run has published stands" in said
    assert "what an earlier run" not in cell(march, STOPPED, "day")[1]
    assert series(march, "rows")["scored"][OVERTAKEN] == 30


def test_newer_input_makes_a_scored_day_unfinished(tiny: TinyProject) -> None:
    tiny.land(FINE, tiny.rows(64))
    tiny.run(FINE)
    tiny.land(FINE, tiny.rows(70))
    tiny.run(FINE, ["raw_input"])
    assert draw(tiny)["days_unfinished"] == 1


def test_every_failed_check_stands_in_the_table(march: TinyProject) -> None:
    (table,) = re.findall(r'<table id="failures">.*?</table>', page(march))
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", table)
    assert [(day, check, "stopped the day" in said) for day, _, check, said in rows] == [
        (QUARANTINED, "categories_are_known", False),
        (STOPPED, "some_rows_are_accepted", True),
        (OVERTAKEN, "some_rows_are_accepted", True),
    ]


# the figures


def test_rows_are_those_of_the_accounts(march: TinyProject) -> None:
    found = series(march, "rows")
    scored = {day: rows for day, rows in found["scored"].items() if rows}
    assert scored == {FINE: 100, QUARANTINED: 89, PROMOTED: 120, OVERTAKEN: 30}
    assert {day: rows for day, rows in found["quarantined"].items() if rows} == {QUARANTINED: 11}
    assert series(march, "quarantine") == {
        "quarantined": {FINE: 0, QUARANTINED: 11 / 100, PROMOTED: 0, OVERTAKEN: 0},
    }


def test_accepted_rows_of_a_day_without_predictions_are_told_apart(tiny: TinyProject) -> None:
    tiny.land(FINE, tiny.rows(40))
    tiny.run(FINE, ["raw_input", "validated_features"])
    found = draw(tiny)
    assert found["rows_scored"] == 0 and found["days_unfinished"] == 1
    assert series(tiny, "rows")["accepted, not scored"][FINE] == 40
    assert 'data-chart="score"' not in page(tiny)


def test_mean_scores_are_those_of_the_tables_by_model(march: TinyProject) -> None:
    traces = chart(march, "score")
    assert [(trace["name"], trace["x"]) for trace in traces] == [
        ("v1: prob_class_1", [FINE, QUARANTINED, OVERTAKEN]),
        ("v2: prob_class_1", [PROMOTED]),
    ]
    for trace in traces:
        for day, mean, deviation in zip(trace["x"], trace["y"], trace["error_y"]["array"], strict=True):
            scores = march.read(day)["prob_class_1"].to_numpy()
            assert mean == pytest.approx(scores.mean(), abs=1e-5)
            assert deviation == pytest.approx(scores.std(), abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "column"), [({"outputs": 3}, "prediction_proba"), ({"outputs": 1, "task": "regression"}, "prediction")]
)
def test_the_mean_is_of_the_column_that_says_most(tiny: TinyProject, kind: dict[str, Any], column: str) -> None:
    tiny.deliver("v2", **kind)
    tiny.land(FINE, tiny.rows(64))
    tiny.run(FINE)
    draw(tiny)
    (trace,) = chart(tiny, "score")
    assert trace["name"] == f"v2: {column}"
    assert trace["y"] == [pytest.approx(tiny.read(FINE)[column].to_numpy().mean(), abs=1e-5)]


def test_throughput_is_of_the_rows_that_the_run_worked_on(tiny: TinyProject) -> None:
    tiny.land(FINE, tiny.rows(100), age=100)
    tiny.run(FINE)
    first = tiny.account("predictions", FINE)
    assert first.seconds > 0 and first.rows_per_second == pytest.approx(100 / first.seconds)
    tiny.run(FINE)
    assert tiny.account("predictions", FINE).seconds == first.seconds, "an unchanged day keeps its account"
    tiny.land(FINE, tiny.rows(5, start=100), "late.parquet")
    tiny.run(FINE)
    account = tiny.account("predictions", FINE)
    assert account.rows_per_second == pytest.approx(5 / account.seconds), "100 of the rows are an earlier run's"
    draw(tiny)
    assert series(tiny, "throughput") == {
        step: {FINE: pytest.approx(tiny.account(step, FINE).rows_per_second)}
        for step in ("validated_features", "predictions")
    }


# drift


def calibrated(tiny: TinyProject) -> None:
    """Give the bundle thresholds, as a calibration might have learned them, and a reference with days."""
    bundle = read_bundle(tiny.pipeline.bundle)
    days, sink = [date(2024, 1, n % 31 + 1) for n in range(bundle.reference.num_rows)], io.BytesIO()
    pq.write_table(bundle.reference.append_column("dt", pa.array(days)), sink)
    bundle = replace(bundle, content=dict(bundle.content) | {"reference.parquet": sink.getvalue()})
    columns = {
        name: Column(kind="numeric", grain="row", day=day, sampling=0.5, trailing=None, missing=0.9)
        for name, day in (("x", 0.2), ("n", 0.4))
    }
    profile = Profile(
        first="2024-01-01",
        last="2024-01-31",
        days=31,
        rows=64,
        weekends_apart=False,
        factor=1,
        columns=columns,
        scores={},
        left_out={},
        everyday={},
        held_out=(),
        share_alarms=0,
        exceeding={},
        score_days=Scores(confidence=None, confidence_sd=0.1, spread=None, largest_class=None),
    )
    bundle.with_profile(profile, "v1").write(tiny.pipeline.bundle)


def test_drift_is_the_column_furthest_beyond_its_threshold(tiny: TinyProject) -> None:
    calibrated(tiny)
    rows = tiny.rows(100)
    tiny.land(FINE, rows)
    tiny.land(QUARANTINED, rows.set_column(1, "x", pa.array([900.0 + n for n in range(100)])))
    for day in (FINE, QUARANTINED):
        tiny.run(day)
    draw(tiny)
    (trace,) = chart(tiny, "drift")
    kept = tiny.state.drift(QUARANTINED)
    assert kept is not None
    (x,) = [column for column in kept.features if column.column == "x" and column.horizon == "day"]
    assert trace["name"] == "the day" and trace["x"] == [FINE, QUARANTINED]
    assert trace["y"][0] < 1 < trace["y"][1] == pytest.approx(x.observed / x.threshold)
    assert trace["customdata"][1] == ["x", pytest.approx(x.observed), pytest.approx(x.threshold)]


def test_trailing_days_have_lines_of_their_own(tiny: TinyProject) -> None:
    def column(name: str, horizon: str, observed: float, threshold: float) -> ColumnDrift:
        return ColumnDrift(
            column=name,
            horizon=horizon,
            rows=99,
            observed=observed,
            threshold=threshold,
            drifted=False,  # type: ignore[arg-type]
        )

    tiny.state.put_drift(
        DayDrift(
            day=FINE,
            run_id="r",
            model_sha256="s",
            features=(
                column("x", "day", 0.45, 0.9),
                column("y", "missing", 0.4, 0.5),
                column("flat", "day", 0.0, 0.0),
                column("x", "trailing", 0.6, 0.9),
                column("n", "trailing", 0.5, 0.25),
            ),
            predictions=(column("prob_class_1", "trailing", 0.3, 0.4),),
        )
    )
    (day,) = [day for day in gather(tiny.pipeline, "2024-03", datetime.now(UTC), "r").days if day.day == FINE]
    assert {name: worst.column for name, worst in day.drift.items()} == {
        "the day": "y",
        "28 days, features": "n",
        "28 days, scores": "prob_class_1",
    }


# the file


def test_the_page_asks_no_network_for_anything(march: TinyProject) -> None:
    whole, ours = march.pipeline.output.read(PAGE).decode(), page(march)
    assert whole.count(get_plotlyjs()) == 1
    assert not re.findall(r"https?:|\bsrc=|\bhref=|@import|url\(", ours)
    assert "default-src 'none'" in ours


def test_what_data_says_is_text_and_no_markup(march: TinyProject) -> None:
    assert VILLAIN not in page(march) and "<script>alert" not in page(march)
    assert "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in page(march)
    _, said = cell(march, QUARANTINED, "validated_features/categories_are_known")
    assert "&lt;script&gt;" in said and "<script" not in said, "plotly reads a hover text as HTML"


def test_an_empty_month_has_a_page_that_says_so(march: TinyProject) -> None:
    found = draw(march, "2024-04-01")
    assert (found["days_missing"], found["days_scored"], found["rows_scored"]) == (30, 0, 0)
    assert "No day of April 2024 has been run" in page(march, "reports/month=2024-04.html")


def test_the_current_month_can_be_drawn(tiny: TinyProject) -> None:
    key = months(tiny.pipeline).get_last_partition_key()
    assert key == str(datetime.now(UTC).date().replace(day=1))
    assert draw(tiny, key)["days_missing"] == datetime.now(UTC).day - 1
    assert "has been run" in page(tiny, f"reports/month={key[:7]}.html")


def test_a_start_within_a_month_has_that_month_from_there(tiny: TinyProject) -> None:
    tiny.spec["partitions"]["start"] = "2024-03-15"
    tiny.write_spec()
    assert months(tiny.pipeline).get_first_partition_key() == MONTH
    assert draw(tiny)["days_missing"] == 17
    assert gather(tiny.pipeline, "2024-03", datetime.now(UTC), "r").days[0].day == str(date(2024, 3, 15))


def test_a_page_drawn_again_replaces_the_first(tiny: TinyProject) -> None:
    draw(tiny)
    assert "No day of March 2024" in page(tiny)
    tiny.land(FINE, tiny.rows(64))
    tiny.run(FINE)
    draw(tiny)
    assert "1 scored" in page(tiny) and "No day of March 2024" not in page(tiny)
    assert [path.name for path in Path(tiny.pipeline.output.uri, "reports").iterdir()] == ["month=2024-03.html"]


def test_failed_runs_stand_on_the_page_by_class(tiny: TinyProject) -> None:
    tiny.land(FINE, b"PAR1, and no more")
    with dg.DagsterInstance.ephemeral() as instance:
        tiny.run(FINE, instance=instance, raise_on_error=False)
        tiny.definitions.resolve_job_def(f"report_{tiny.name}").execute_in_process(
            partition_key=MONTH, instance=instance
        )
    assert f"<td>bad_input</td><td>1</td><td>{datetime.now(UTC):%Y-%m-%d}" in page(tiny)
    draw(tiny)
    assert "bad_input" not in page(tiny), "another instance knows of none"
