"""All probes together: what is well stays as it is, and a fault is one finding."""

import io
import time
from pathlib import Path

import pytest
from dagster._daemon.types import DaemonHeartbeat

from batch_scoring.cli.doctor import all_probes, cloud, delta_tables, exports, inputs, instance, machine, probe, stores
from batch_scoring.errors import UnknownPipelineError
from batch_scoring_tests.broken_sites import Clinic, findings


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_site_that_was_never_scored_is_well_and_stays_as_it_is(clinic: Clinic, tmp_path: Path) -> None:
    before = files_of(tmp_path), sorted(tmp_path.rglob("*"))
    report = clinic.look()
    assert findings(report) == [], report.text()
    assert "no errors or warnings; " in report.text()
    assert (files_of(tmp_path), sorted(tmp_path.rglob("*"))) == before


def test_a_site_at_work_is_well_and_its_data_stays_as_it_is(scored: Clinic) -> None:
    with scored.instance() as instance:
        for kind in instance.get_required_daemon_types():
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 30, kind, "x", []))
    data = Path(scored.tiny.data_root)
    before = files_of(data), files_of(scored.home), sorted(data.rglob("*")), sorted(scored.home.rglob("*"))
    report = scored.look()
    assert findings(report) == [], report.text()
    after = files_of(data), files_of(scored.home), sorted(data.rglob("*")), sorted(scored.home.rglob("*"))
    assert after == before


def test_no_pipeline_of_that_name() -> None:
    known = "customer_churn, flight_delay, support_tickets"
    with pytest.raises(UnknownPipelineError, match=f"no pipeline 'flights'; known pipelines: {known}"):
        all_probes.doctor(["flight_delay", "flights"], io.StringIO())


def test_every_probe_is_in_a_list_once_and_says_what_is_so() -> None:
    probes = [*all_probes.OF_DEPLOYMENT, *all_probes.OF_PIPELINE]
    declared = [
        value
        for module in (cloud, delta_tables, exports, inputs, instance, machine, stores)
        for value in vars(module).values()
        if isinstance(value, probe.Probe)
    ]
    assert {one.name for one in declared} == {one.name for one in probes}
    assert len({one.name for one in probes}) == len(probes)
    assert all((one.states and one.states[0].isupper()) or one.states.startswith("dagster") for one in probes)
