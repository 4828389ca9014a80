"""Which of Evidently's pages are kept, and that its verdict is ours."""

import math
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from batch_scoring.inference.reference_profile import Kind
from batch_scoring.monitoring.drift import distances, pages
from batch_scoring.monitoring.drift.distances import Distribution, counted, distance, values_of
from batch_scoring_tests.drift_days import added, calibrated, kept_pages, run
from batch_scoring_tests.tiny import DAY, TinyProject, ordinary, reference_rows


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    return calibrated(tmp_path_factory.mktemp("project"))


def test_pages_are_kept_of_days_that_alarm_and_of_the_newest(tiny: TinyProject) -> None:
    tiny.deliver("v1", reference=reference_rows(days=30))
    tiny.spec["drift"] = {"reports": 2}
    tiny.write_spec()
    monday, tuesday, wednesday, thursday = (f"2024-03-0{day}" for day in (4, 5, 6, 7))
    run(tiny, monday, added(ordinary(monday), "x", 10.0))
    for day in (tuesday, wednesday):
        assert run(tiny, day, ordinary(day)).passed
    assert kept_pages(tiny) == [f"dt={day}/drift.html" for day in (monday, tuesday, wednesday)]
    run(tiny, thursday, ordinary(thursday))
    assert kept_pages(tiny) == [f"dt={day}/drift.html" for day in (monday, wednesday, thursday)]
    reports = Path(tiny.pipeline.output.uri, "reports")
    before = {page: (reports / page).read_bytes() for page in kept_pages(tiny)}
    tiny.run(thursday, ["predictions"])
    assert before == {
        page: Path(tiny.pipeline.output.uri, "reports", page).read_bytes() for page in kept_pages(tiny)
    }, "a page of the features is not drawn without their tests"
    run(tiny, monday, ordinary(monday))
    assert kept_pages(tiny) == [f"dt={day}/drift.html" for day in (wednesday, thursday)], (
        "a corrected day no longer alarms"
    )


def test_a_file_of_somebody_elses_among_the_pages_stays(project: TinyProject) -> None:
    for name in ("reports/dt=notes.txt", f"reports/dt={DAY}/mine.html", f"reports/dt={DAY}/deep/drift.html"):
        project.pipeline.output.put(name, b"mine")
    assert run(project, "2024-08-06", ordinary("2024-08-06")).passed
    there = {file.path for file in project.pipeline.output.list("reports/")}
    assert {"reports/dt=notes.txt", f"reports/dt={DAY}/mine.html", f"reports/dt={DAY}/deep/drift.html"} <= there


def seen(rows: list[object], kind: Kind) -> Distribution:
    return counted([values_of(pa.array(rows), kind)])


@pytest.fixture(scope="module")
def compared() -> tuple[pages.EvidentlyPage, dict[str, distances.Tested]]:
    """A day as Evidently sees it: x is far away, y holds infinities and nulls, z is empty."""
    reference, current = reference_rows().drop_columns("dt"), ordinary("2024-03-04", 930)
    changed = current["y"].to_pylist()
    changed[:4] = [None, math.inf, -math.inf, math.nan]
    current = current.set_column(1, "x", pa.array(current["x"].to_numpy() + 5.0))
    current = current.set_column(2, "y", pa.array(changed, pa.float64()))
    reference = reference.append_column("z", pa.array(np.ones(len(reference))))
    current = current.append_column("z", pa.nulls(930, pa.float64()))
    kinds: dict[str, Kind] = {"x": "numeric", "y": "numeric", "n": "numeric", "c": "categorical", "z": "numeric"}
    thresholds = {"x": 2.0, "y": 0.06, "n": 0.04, "c": 0.01, "z": 0.2}  # none of them Evidently's, nor its verdict
    tested = {}
    for name, kind in kinds.items():
        values, against = values_of(current[name], kind), seen(reference[name].to_pylist(), kind)
        far = distance(against, values, kind) if len(values) else 0.0
        tested[name] = distances.Tested(name, kind, len(values), far, thresholds[name])
    return pages.evidently_page(reference, current, kinds, list(tested.values())), tested


@pytest.mark.slow
def test_evidently_finds_the_same_distances(
    compared: tuple[pages.EvidentlyPage, dict[str, distances.Tested]],
) -> None:
    page, tested = compared
    assert set(page.distances) == {"x", "y", "n", "c"}
    for name, found in page.distances.items():
        assert found == pytest.approx(tested[name].distance, abs=5e-15)
    assert {name for name, test in tested.items() if test.drifted} == {"n", "c"}


@pytest.mark.slow
def test_an_empty_column_is_left_out_of_evidentlys_page_and_named(
    compared: tuple[pages.EvidentlyPage, dict[str, distances.Tested]],
) -> None:
    page, _ = compared
    assert page.left_out == ("z",)
    assert b"<html" in page.html and len(page.html) > 100_000


@pytest.mark.slow
def test_evidentlys_verdict_is_ours_of_every_column_and_of_the_day(
    compared: tuple[pages.EvidentlyPage, dict[str, distances.Tested]],
) -> None:
    page, tested = compared
    shown = re.findall(rb'"data_drift": "(Detected|Not Detected)", "drift_score": ([0-9.]+)', page.html)
    results = {float(score): result == b"Detected" for result, score in shown}
    assert results == {round(test.distance, 6): test.drifted for test in tested.values() if test.column != "z"}
    assert b"Dataset Drift is detected" in page.html, "one drifted column is an alarm"
