"""A month on a page: its days, checks, rows, scores, distances and speeds, and nothing from elsewhere."""

import io
import re
from dataclasses import replace
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plotly.offline import get_plotlyjs

from batch_scoring.inference.bundle import read_bundle
from batch_scoring.inference.reference_profile import ColumnProfile, ReferenceProfile, Scores
from batch_scoring_tests.month_pages import (
    BROKEN,
    FINE,
    MISSING,
    OVERTAKEN,
    PAGE,
    PROMOTED,
    QUARANTINED,
    STOPPED,
    bad,
    cell,
    chart,
    draw,
    page,
    series,
)
from batch_scoring_tests.tiny import TinyProject

VILLAIN = "</script><script>alert(1)</script>"

CHECKS = 19


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

    result, said = cell(march, STOPPED, "validated_features/some_rows_are_accepted")
    assert result == "stopped" and "0 of 7 rows are accepted" in said.replace("<br>", " ")
    assert cell(march, STOPPED, "predictions/rows_are_conserved")[0] == "not run"
    assert cell(march, STOPPED, "day")[0] == "stopped"


def test_a_day_whose_step_raised_is_no_scored_one(march: TinyProject) -> None:
    assert cell(march, BROKEN, "raw_input/input_is_present")[0] == "passed"
    assert cell(march, BROKEN, "day")[0] == "failed"


def test_a_failed_day_keeps_the_rows_of_its_earlier_publication_and_says_so(march: TinyProject) -> None:
    result, said = cell(march, OVERTAKEN, "day")
    assert result == "stopped" and "the rows of an earlier run remain published" in said
    assert "the rows of an earlier run" not in cell(march, STOPPED, "day")[1]
    assert series(march, "rows")["scored"][OVERTAKEN] == 30


def test_every_failed_check_stands_in_the_table(march: TinyProject) -> None:
    (table,) = re.findall(r'<table id="failures">.*?</table>', page(march))
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", table)
    assert [(day, check, "stopped the day" in said) for day, _, check, said in rows] == [
        (QUARANTINED, "categories_are_known", False),
        (STOPPED, "some_rows_are_accepted", True),
        (OVERTAKEN, "some_rows_are_accepted", True),
    ]


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


def calibrated(tiny: TinyProject) -> None:
    """Give the bundle thresholds, as a calibration might have learned them, and a reference with days."""
    bundle = read_bundle(tiny.pipeline.bundle)
    days, sink = [date(2024, 1, n % 31 + 1) for n in range(bundle.reference.num_rows)], io.BytesIO()
    pq.write_table(bundle.reference.append_column("dt", pa.array(days)), sink)
    bundle = replace(bundle, content=dict(bundle.content) | {"reference.parquet": sink.getvalue()})
    columns = {
        name: ColumnProfile(kind="numeric", grain="row", day=day, sampling=0.5, trailing=None, missing=0.9)
        for name, day in (("x", 0.2), ("n", 0.4))
    }
    profile = ReferenceProfile(
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
