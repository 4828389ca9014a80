"""Exports whose sinks would not take a day, and sensors that do not start them."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from batch_scoring.cli.doctor.exports import sensors, sinks
from batch_scoring.cli.doctor.probe import Site
from batch_scoring.config.names import exports_sensor_name
from batch_scoring.dagster_internals import InstigatorStatus
from batch_scoring.delivery.exports.export import export_day
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage.state import State
from batch_scoring_tests.broken_sites import Clinic, findings, told
from batch_scoring_tests.exports import break_sink, unchecked, with_export
from batch_scoring_tests.operations.automation.test_sensor_status import Sensor
from batch_scoring_tests.redis_process import needs_redis, running_redis
from batch_scoring_tests.tiny import TinyProject


def found(tiny: TinyProject) -> list[str]:
    return [f"{finding.severity} {finding.where}: {finding.found}" for finding in sinks.look(tiny.pipeline)]


def test_sinks_that_take_a_day_are_nothing_to_report(scored: Clinic) -> None:
    with_export(scored.tiny)
    report = scored.look()
    assert findings(report) == []
    outcomes = {outcome.probe.name: outcome for outcome in report.outcomes}
    assert not outcomes["sinks"].skipped and "exports sensor" in outcomes
    assert not list(Path(scored.tiny.data_root, "exports").glob("*")), "nothing of the probe stays"


def test_without_exports_the_report_is_as_before(scored: Clinic) -> None:
    assert not {"sinks", "exports sensor"} & {outcome.probe.name for outcome in scored.look().outcomes}


def test_an_address_that_is_not_set_is_named(scored: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESULTS_DB", raising=False)
    with_export(scored.tiny, path=None, to="postgres", url_from="RESULTS_DB", table="scores")
    report = scored.look()
    told(report, "error", "sinks", "exports.list", "the environment variable RESULTS_DB", "is not set")


def test_a_sink_that_does_not_answer_is_named_without_its_password(
    scored: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESULTS_DB", "postgresql://secretary:hunter2@127.0.0.1:9/none")
    with_export(scored.tiny, path=None, to="postgres", url_from="RESULTS_DB", table="scores")
    (finding,) = found(scored.tiny)
    (remedy,) = (one.remedy for one in sinks.look(scored.tiny.pipeline))
    assert remedy == "check that it runs and can be reached"
    assert "127.0.0.1:9" in finding and "hunter2" not in finding and "secretary" not in finding


@needs_redis
def test_a_problem_without_a_remedy_leads_to_the_section_and_to_the_address(
    scored: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_redis() as redis:
        monkeypatch.setenv("REDIS_URL", f"{redis.url.removesuffix('/0')}/99")
        with_export(scored.tiny, path=None, to="redis", url_from="REDIS_URL", prefix="rec", key="id", value="x")
        (finding,) = sinks.look(scored.tiny.pipeline)
    assert "out of range" in finding.found
    assert finding.remedy == "see exports.list in pipeline.yaml, and the address in REDIS_URL"


@needs_redis
def test_a_server_that_was_emptied_since_the_export_is_told_with_the_command(
    scored: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = StepContext("run", datetime.now(UTC), lambda _: None)
    fields = {"to": "redis", "url_from": "REDIS_URL", "prefix": "rec", "key": "id", "value": "x", "form": "single"}
    with running_redis() as redis, redis.client() as client:
        monkeypatch.setenv("REDIS_URL", redis.url)
        pipeline = with_export(scored.tiny, path=None, ttl_hours=48, **fields).pipeline
        day = State(pipeline.output).newest_days()[0]
        export_day(pipeline, "list", day, run)
        assert found(scored.tiny) == []
        client.flushall()
        (finding,) = sinks.look(pipeline)
        assert finding.severity == "warning"
        assert finding.found == f"the sink shows nothing of {day}, which was exported"
        assert finding.remedy == f"run: batch-scoring export {pipeline.name} list {day} {day} --again"
        export_day(pipeline, "list", day, run, again=True)
        assert found(scored.tiny) == []
        client.flushall()
        with_export(scored.tiny, path=None, ttl_hours=48, corrections="keep", **fields)
        assert found(scored.tiny) == [], "what was exported is to stay as it is, also gone"


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"columns": ["wrong"]}, "no column 'wrong'"), ({"where": "wrong > 3"}, "exports.list.where")],
)
def test_an_export_that_does_not_fit_the_rows_is_named(scored: Clinic, fields: dict[str, object], says: str) -> None:
    (finding,) = sinks.look(unchecked(scored.tiny, **fields))
    assert says in finding.found


def test_before_the_first_day_only_the_address_is_tried(clinic: Clinic) -> None:
    with_export(clinic.tiny)
    assert found(clinic.tiny) == []
    break_sink(clinic.tiny)
    (finding,) = found(clinic.tiny)
    assert "exports" in finding


def test_a_sensor_that_was_switched_off_by_hand(scored: Clinic) -> None:
    with_export(scored.tiny)
    name = exports_sensor_name(scored.tiny.pipeline)
    with scored.instance() as instance:
        site = Site([scored.tiny.pipeline], instance=instance)
        assert list(sensors.look(site)) == []
        Sensor(instance, name).switch(InstigatorStatus.STOPPED)
        (finding,) = sensors.look(site)
    assert (finding.severity, finding.where) == ("warning", f"sensor {name}")
    assert "sensor start" in finding.remedy
