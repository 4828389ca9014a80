"""Tests of a pipeline's samples, against its tables and against documents that a test writes."""

import os
import random
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batch_scoring.errors import FailureClass
from batch_scoring.metrics import catalogue
from batch_scoring.metrics.catalogue import RECENT_DAYS, Metric
from batch_scoring.metrics.day_samples import of_pipeline
from batch_scoring.operations.alerting import deadlines
from batch_scoring.operations.retention import vacuum
from batch_scoring.operations.retention.plan import limits_of
from batch_scoring.storage import state_look
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring.storage.state import (
    ColumnDrift,
    DayDrift,
    DayInput,
    FailureRecord,
    PublishedDay,
    PublishedPart,
    ShardStats,
)
from batch_scoring_tests import decided, exports
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject, checks

NOW = datetime(2024, 3, 6, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_look, "_cache", state_look._Cache())


def found(tiny: TinyProject, metric: Metric, now: datetime = NOW) -> dict[tuple[str, ...], float]:
    """The samples of a metric by its labels, without that of the pipeline."""
    samples = [sample for sample in of_pipeline(tiny.pipeline, now) if sample.metric is metric]
    assert all(sample.labels[0] == tiny.name for sample in samples)
    by_labels = {sample.labels[1:]: sample.value for sample in samples}
    assert len(by_labels) == len(samples), "two values of one series"
    return by_labels


def one(tiny: TinyProject, metric: Metric, now: datetime = NOW) -> float | None:
    return found(tiny, metric, now).get(())


def put_input(tiny: TinyProject, day: str, at: datetime, fingerprint: str = "f") -> None:
    tiny.state.put_day_input(DayInput(day=day, fingerprint=fingerprint, files=(), run_id="r", pinned_at=at))


def put_scores(tiny: TinyProject, day: str, at: datetime, fingerprint: str = "f", shards: int = 0) -> None:
    stats = [ShardStats(digest=str(one), source=str(one), run_id="r", rows_in=1, rows=1) for one in range(shards)]
    part = PublishedPart(transaction=1, version=1, files=())
    fields: dict[str, Any] = {"pipeline": tiny.name, "run_id": "r", "fingerprint": fingerprint, "code": "c"}
    tiny.state.put_published_day(
        PublishedDay(day=day, step="predictions", shards=tuple(stats), table=part, finished_at=at, **fields)
    )


def put_failure(
    tiny: TinyProject, day: str, at: datetime, failure: FailureClass = "lost", run: str = "a", export: str = ""
) -> None:
    tiny.state.put_failure(
        FailureRecord(
            run_id=run, day=day, step="predictions", failure_class=failure, at=at, message="killed", export=export
        )
    )


def states(tiny: TinyProject) -> Mapping[str, float]:
    return {state: count for (state,), count in found(tiny, catalogue.RECENT_PARTITIONS).items() if count}


def test_the_figures_of_a_day_are_those_of_its_tables_and_checks(tiny: TinyProject) -> None:
    decided.with_decisions(tiny)
    tiny.spec["alerts"] = {"scored_hours": 30}
    tiny.spec["prices"] = {"currency": "EUR", "cpu_hour": 3600 * 2}
    tiny.write_spec()
    rows = decided.customers(tiny, 60)
    x = rows.column("x").to_pylist()
    x[3], x[7] = 5000.0, 666.0  # against the schema; a row that the network refuses
    tiny.land(DAY, rows.set_column(1, "x", pa.array(x)))
    before, cpu = datetime.now(UTC).timestamp(), time.process_time()
    result = tiny.run()
    spent = time.process_time() - cpu
    scores = tiny.read()
    now = datetime.now(UTC)
    assert found(tiny, catalogue.DAY_ROWS) == {("scored",): 58, ("rejected",): 1, ("unscored",): 1}
    for column in ("prediction_proba", "prob_class_0", "prob_class_1"):
        mean = float(np.mean(scores.column(column).to_numpy(), dtype=np.float64))
        assert found(tiny, catalogue.DAY_SCORE_MEAN)[column,] == pytest.approx(mean, abs=1e-9)
    reported = checks(result)
    said = {f"{asset}/{check}": value for (asset, check), value in found(tiny, catalogue.DAY_CHECK_PASSED).items()}
    assert said == {name: passed for name, passed in reported.items() if name in said}
    assert {name for name in reported if not name.startswith("model/")} == said.keys()
    actions = tiny.read(table="decisions").column("action").to_pylist()
    assert {action: int(count) for (action,), count in found(tiny, catalogue.DAY_DECISIONS).items()} == {
        action: actions.count(action) for action in set(actions)
    }
    began = one(tiny, catalogue.NEWEST_DAY)
    assert began == datetime(2024, 3, 4, tzinfo=UTC).timestamp()
    assert one(tiny, catalogue.NEWEST_DAY_LIMIT) == (24 + 30) * 3600
    assert before <= (one(tiny, catalogue.LAST_SUCCESS) or 0) <= now.timestamp()
    assert {step for (step,) in found(tiny, catalogue.DAY_DURATION)} == {
        "validated_features",
        "predictions",
        "decisions",
    }
    assert all(0 < seconds < now.timestamp() - before for seconds in found(tiny, catalogue.DAY_DURATION).values())
    used = found(tiny, catalogue.DAY_CPU)
    assert used.keys() == found(tiny, catalogue.DAY_DURATION).keys()
    assert 0 < sum(used.values()) <= spent, "of this process, measured by itself"
    assert found(tiny, catalogue.DAY_COST) == {("EUR",): pytest.approx(2 * sum(used.values()), abs=1e-3)}
    assert set(found(tiny, catalogue.DAY_GPU).values()) == {0}
    assert states(tiny) == {"scored": 1}
    assert one(tiny, catalogue.IN_PROGRESS_SINCE) is None
    model = tiny.state.model()
    assert found(tiny, catalogue.MODEL_INFO) == {(model.version, model.sha256): 1}
    # a predictions document without its decisions: the day is in progress again
    tiny.pipeline.output.remove(f"state/dt={DAY}/decisions.json")
    assert states(tiny) == {"in_progress": 1}


def test_a_day_is_in_progress_from_its_pinned_input_until_it_is_scored_or_has_failed(tiny: TinyProject) -> None:
    assert states(tiny) == {}
    put_input(tiny, DAY, NOW - timedelta(hours=3))
    put_input(tiny, NEXT_DAY, NOW - timedelta(hours=1))
    assert states(tiny) == {"in_progress": 2}
    assert one(tiny, catalogue.IN_PROGRESS_SINCE) == (NOW - timedelta(hours=3)).timestamp()
    put_scores(tiny, DAY, NOW)
    assert states(tiny) == {"scored": 1, "in_progress": 1}
    assert one(tiny, catalogue.IN_PROGRESS_SINCE) == (NOW - timedelta(hours=1)).timestamp()
    put_failure(tiny, NEXT_DAY, NOW - timedelta(minutes=30))
    assert states(tiny) == {"scored": 1, "failed": 1}
    assert one(tiny, catalogue.IN_PROGRESS_SINCE) is None
    assert one(tiny, catalogue.FAILED_PARTITIONS) == 1
    put_input(tiny, NEXT_DAY, NOW - timedelta(minutes=5))  # run again
    assert states(tiny) == {"scored": 1, "in_progress": 1}
    put_scores(tiny, NEXT_DAY, NOW - timedelta(minutes=1))
    assert (states(tiny), one(tiny, catalogue.FAILED_PARTITIONS)) == ({"scored": 2}, 0)
    put_input(tiny, DAY, NOW, fingerprint="corrected")
    assert states(tiny) == {"scored": 1, "in_progress": 1}


def test_days_without_a_comparison_do_not_hide_the_newest_one(tiny: TinyProject) -> None:
    def compared(day: str, observed: float) -> DayDrift:
        column = ColumnDrift(column="x", horizon="day", rows=9, observed=observed, threshold=0.2, drifted=False)
        return DayDrift(day=day, run_id="r", model_sha256="m", features=(column,), predictions=())

    for day, observed in (("2024-02-29", 0.2), ("2024-03-01", 0.1)):
        put_scores(tiny, day, NOW - timedelta(days=5))
        tiny.state.put_drift(compared(day, observed))
    for day in ("2024-03-02", "2024-03-03", "2024-03-04", "2024-03-05"):  # a long weekend, and the day in progress
        put_input(tiny, day, NOW)
    assert found(tiny, catalogue.DAY_DRIFT) == {("features",): 0.5}


def test_decisions_about_the_scores_before_a_correction_are_not_those_of_the_day(tiny: TinyProject) -> None:
    decided.with_decisions(tiny)
    tiny.land(DAY, decided.customers(tiny, 20))
    tiny.run()
    assert sum(found(tiny, catalogue.DAY_DECISIONS).values()) == 20
    tiny.land(DAY, decided.customers(tiny, 30))
    tiny.run(steps=["model", "raw_input", "validated_features", "predictions"])
    assert found(tiny, catalogue.DAY_DECISIONS) == {}
    tiny.run()
    assert sum(found(tiny, catalogue.DAY_DECISIONS).values()) == 30


def test_decisions_that_the_spec_no_longer_has_are_not_waited_for(tiny: TinyProject) -> None:
    decided.with_decisions(tiny)
    tiny.land(DAY, decided.customers(tiny, 20))
    tiny.run(steps=["model", "raw_input", "validated_features", "predictions"])
    assert states(tiny) == {"in_progress": 1}
    for section in ("decisions", "exports"):
        tiny.spec.pop(section, None)
    tiny.write_spec()
    assert states(tiny) == {"scored": 1}
    assert one(tiny, catalogue.IN_PROGRESS_SINCE) is None


def test_what_was_superseded_or_of_an_export_is_no_failed_day(tiny: TinyProject) -> None:
    put_input(tiny, DAY, NOW - timedelta(hours=2))
    put_failure(tiny, DAY, NOW - timedelta(hours=1), "superseded")
    assert (states(tiny), one(tiny, catalogue.FAILED_PARTITIONS)) == ({"in_progress": 1}, 0)
    put_failure(tiny, DAY, NOW - timedelta(hours=1), "sink", run="b", export="calls")
    assert (states(tiny), one(tiny, catalogue.FAILED_PARTITIONS)) == ({"in_progress": 1}, 0)


def test_failed_runs_are_those_of_a_day_by_class_and_a_day_without_input_counts_as_failed(tiny: TinyProject) -> None:
    put_failure(tiny, DAY, NOW - timedelta(hours=25), run="old")
    put_failure(tiny, DAY, NOW - timedelta(hours=23), run="new")
    put_failure(tiny, NEXT_DAY, NOW - timedelta(hours=2), "bad_input", run="other")
    put_failure(tiny, NEXT_DAY, NOW - timedelta(hours=1), "bad_input", run="again")
    counts = {name: count for (name,), count in found(tiny, catalogue.FAILED_RUNS).items() if count}
    assert counts == {"lost": 1, "bad_input": 2}
    assert len(found(tiny, catalogue.FAILED_RUNS)) == 9, "zeros too: a class that first appears has no history"
    assert one(tiny, catalogue.FAILED_PARTITIONS) == 2


def test_a_day_that_failed_for_want_of_files_is_no_failed_day_until_they_land(tiny: TinyProject) -> None:
    """A schedule runs on Sundays too; nobody shall be told of each for weeks."""
    tiny.run(raise_on_error=False)
    put_failure(tiny, DAY, NOW)
    assert one(tiny, catalogue.FAILED_PARTITIONS) == 0
    tiny.land(DAY, b"neither Parquet", "a.parquet")
    tiny.run(raise_on_error=False)
    put_failure(tiny, DAY, NOW, "bad_input", run="b")
    assert one(tiny, catalogue.FAILED_PARTITIONS) == 1


def test_a_file_without_rows_is_a_failed_day(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(0))
    assert not tiny.run(raise_on_error=False).success
    now = datetime.now(UTC)
    assert one(tiny, catalogue.FAILED_PARTITIONS, now) == 1
    tiny.land(DAY, tiny.rows(5))
    tiny.run()
    assert one(tiny, catalogue.FAILED_PARTITIONS, datetime.now(UTC)) == 0


def test_rejected_rows_of_a_correction_are_not_those_of_the_scores_before_it(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(30))
    tiny.run()
    assert found(tiny, catalogue.DAY_ROWS) == {("scored",): 30, ("rejected",): 0, ("unscored",): 0}
    x = tiny.rows(200).column("x").to_pylist()
    tiny.land(DAY, tiny.rows(200).set_column(1, "x", pa.array([5000.0] * 150 + x[150:])))
    tiny.run(steps=["model", "raw_input", "validated_features"])
    assert found(tiny, catalogue.DAY_ROWS) == {("scored",): 30, ("unscored",): 0}
    tiny.run()
    assert found(tiny, catalogue.DAY_ROWS) == {("scored",): 50, ("rejected",): 150, ("unscored",): 0}


def test_old_days_that_failed_and_were_scored_again_or_were_up_to_date_are_not_failed(tiny: TinyProject) -> None:
    for number in range(RECENT_DAYS + 5):
        day = str(date(2024, 3, 1) + timedelta(days=number))
        put_input(tiny, day, NOW - timedelta(hours=9))
        put_scores(tiny, day, NOW - timedelta(hours=8))
    put_failure(tiny, "2024-03-01", NOW - timedelta(hours=9), run="old")
    assert one(tiny, catalogue.FAILED_PARTITIONS) == 0
    put_failure(tiny, "2024-03-20", NOW - timedelta(hours=2), run="rerun")
    assert one(tiny, catalogue.FAILED_PARTITIONS) == 1
    put_input(tiny, "2024-03-20", NOW - timedelta(hours=1))  # a third run, which found nothing to do
    assert one(tiny, catalogue.FAILED_PARTITIONS) == 0


def test_a_torn_document_is_counted_and_its_day_in_progress(tiny: TinyProject) -> None:
    put_input(tiny, DAY, NOW)
    put_scores(tiny, DAY, NOW)
    assert (states(tiny), one(tiny, catalogue.DAMAGED_DOCUMENTS)) == ({"scored": 1}, 0)
    tiny.pipeline.output.put(f"state/dt={DAY}/predictions.json", b'{"day": "2024-')
    assert (states(tiny), one(tiny, catalogue.DAMAGED_DOCUMENTS)) == ({"in_progress": 1}, 1)
    tiny.pipeline.output.put("state/model.json", b"")
    assert one(tiny, catalogue.DAMAGED_DOCUMENTS) == 2


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
def test_a_day_is_missing_from_the_moment_of_its_deadline(tiny: TinyProject, zone: str) -> None:
    """The deadline is that of the alerts, also where a clock is put forward or back."""
    tiny.spec["partitions"] = {"start": "2024-01-01", "timezone": zone}
    tiny.spec["alerts"] = {"scored_hours": 31}
    tiny.write_spec()
    for day in ("2024-03-08", "2024-03-09", "2024-03-10", "2024-03-29", "2024-03-30", "2024-10-26", "2024-11-02"):
        put_scores(tiny, day, NOW)
        began, limit = one(tiny, catalogue.NEWEST_DAY), one(tiny, catalogue.NEWEST_DAY_LIMIT)
        due = datetime.fromtimestamp((began or 0) + (limit or 0), UTC)
        following = str(date.fromisoformat(day) + timedelta(days=1))
        passed = [one.at for one in deadlines.passed([tiny.pipeline], due) if one.day == following]
        assert [at.astimezone(UTC) for at in passed] == [due], day
        just_before = deadlines.passed([tiny.pipeline], due - timedelta(seconds=1))
        assert following not in {one.day for one in just_before}


def test_without_a_deadline_a_day_is_missing_after_36_hours_of_the_next(tiny: TinyProject) -> None:
    put_scores(tiny, DAY, NOW)
    assert one(tiny, catalogue.NEWEST_DAY_LIMIT) == 60 * 3600


def test_an_export_that_is_started_by_hand_is_never_behind(tiny: TinyProject) -> None:
    exports.scored(exports.with_export(tiny, default_status="stopped"))
    assert found(tiny, catalogue.EXPORTS_PENDING) == {}
    tiny.run(steps=["export_list"])
    assert found(tiny, catalogue.EXPORT_LAST_SUCCESS).keys() == {("list",)}


def test_the_last_success_of_an_export_that_falls_behind_stays(tiny: TinyProject) -> None:
    exports.scored(exports.with_export(tiny, recent_days=1))
    tiny.run(steps=["export_list"])
    last = found(tiny, catalogue.EXPORT_LAST_SUCCESS)
    exports.scored(tiny, NEXT_DAY)
    assert found(tiny, catalogue.EXPORTS_PENDING) == {("list",): 1}
    assert found(tiny, catalogue.EXPORT_LAST_SUCCESS) == last != {}


def test_a_day_whose_rows_retention_has_removed_is_not_behind_for_ever(tiny: TinyProject) -> None:
    exports.scored(exports.with_export(tiny, columns=["id", "x"]), DAY, NEXT_DAY)
    assert found(tiny, catalogue.EXPORTS_PENDING) == {("list",): 2}
    for file in Path(tiny.pipeline.output.uri, "tables").glob(f"validated_features/dt={DAY}/*.parquet"):
        os.utime(file, (0, 0))
    tiny.spec["retention"] = {"features_days": 30}
    tiny.write_spec()
    done = vacuum.sweep(tiny.pipeline, vacuum.look(tiny.pipeline, limits_of(tiny.pipeline.spec.retention)), "r")
    assert done.removed and not done.problems
    assert found(tiny, catalogue.EXPORTS_PENDING) == {("list",): 1}


def test_pending_exports_are_counted_until_they_are_exported(tiny: TinyProject, tmp_path: Path) -> None:
    tiny.spec["exports"] = {"list": {"to": "file", "path": str(tmp_path / "list_{day}.csv")}}
    tiny.write_spec()
    tiny.land(DAY, tiny.rows(5))
    tiny.run()
    assert found(tiny, catalogue.EXPORTS_PENDING) == {("list",): 1}
    assert found(tiny, catalogue.EXPORT_LAST_SUCCESS) == {}
    began = datetime.now(UTC).timestamp()
    tiny.run(steps=["export_list"])
    assert found(tiny, catalogue.EXPORTS_PENDING) == {("list",): 0}
    assert began <= found(tiny, catalogue.EXPORT_LAST_SUCCESS)["list",] <= datetime.now(UTC).timestamp()


def thousand_days(tiny: TinyProject, count: int = 1000) -> None:
    """The documents of that many scored days, and a few failures."""
    dice = random.Random(3)
    for number in range(count):
        day = str(date(2024, 3, 1) + timedelta(days=number))
        put_input(tiny, day, NOW)
        put_scores(tiny, day, NOW)
        if dice.random() < 0.02:
            put_failure(tiny, day, NOW - timedelta(days=number), run=str(number))


def test_documents_of_the_newest_days_alone_are_read_and_only_what_has_changed(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    thousand_days(tiny, 60)
    opened: list[str] = []
    real = LocalFolder.open
    monkeypatch.setattr(
        LocalFolder, "open", lambda self, path, token=None: (opened.append(path), real(self, path, token))[1]
    )
    of_pipeline(tiny.pipeline, NOW)
    of_days = {path.split("/")[0] for path in opened if path.startswith("dt=")}
    failed = {f"dt={record.day}" for record in tiny.state.failures_since(NOW - timedelta(days=RECENT_DAYS))}
    assert len(of_days - failed) <= RECENT_DAYS
    opened.clear()
    of_pipeline(tiny.pipeline, NOW)
    assert opened == ["model.json"]
    opened.clear()
    put_scores(tiny, max(of_days).removeprefix("dt="), NOW)
    of_pipeline(tiny.pipeline, NOW)
    # as its head, like every recent day, and whole, as the newest one
    assert sorted(opened) == [f"{max(of_days)}/predictions.json"] * 2 + ["model.json"]


def test_days_of_many_shards_stay_known_though_their_documents_are_more_than_is_kept(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(RECENT_DAYS):
        day = str(date(2024, 3, 1) + timedelta(days=number))
        put_input(tiny, day, NOW)
        put_scores(tiny, day, NOW, shards=100)
    sizes = [file.size for file in tiny.pipeline.output.list("state/dt=")]
    monkeypatch.setattr(state_look, "CACHED_BYTES", max(sizes) * 3)
    before = of_pipeline(tiny.pipeline, NOW)
    opened: list[str] = []
    real = LocalFolder.open
    monkeypatch.setattr(
        LocalFolder, "open", lambda self, path, token=None: (opened.append(path), real(self, path, token))[1]
    )
    assert of_pipeline(tiny.pipeline, NOW) == before
    assert opened == ["model.json"]


@pytest.mark.s3
def test_a_scrape_costs_few_requests_to_s3(store: Store, tmp_path: Path) -> None:
    tiny = TinyProject(tmp_path, data_root=f"s3://{store.new_bucket()}/data")
    thousand_days(tiny, 60)
    requests = store.proxy.statuses
    requests.clear()
    of_pipeline(tiny.pipeline, NOW)
    assert requests.total() <= 100, requests
    requests.clear()
    of_pipeline(tiny.pipeline, NOW)
    # the store of the tests lists 50 names a request: the days, the documents of the newest ones, failures; the model
    assert requests.total() <= 8, requests
