"""The runner of probes: what becomes of one that raises, hangs or does not import."""

import os
import threading
from collections.abc import Iterator
from importlib import import_module

import pytest

from batch_scoring.cli.doctor import all_probes, probe
from batch_scoring.cli.doctor.probe import ProbeFinding, Site
from batch_scoring_tests.broken_sites import findings, told


def test_a_probe_that_raises_and_one_that_hangs_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    @probe.probe("raising")
    def raises(_site: Site) -> Iterator[ProbeFinding]:
        """Something is so."""
        raise KeyError(os.environ["ALERT_URLS"], os.environ["AWS_SECRET_ACCESS_KEY"], "http://me:hunter33@proxy/x")

    @probe.probe("hanging", seconds=0.2)
    def hangs(_site: Site) -> Iterator[ProbeFinding]:
        """The other is so."""
        yield ProbeFinding("warning", "here", "found before")
        release.wait()

    monkeypatch.setattr(all_probes, "OF_DEPLOYMENT", (raises, hangs))
    monkeypatch.setenv("ALERT_URLS", "json://user:hunter11@127.0.0.1/hook")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22")
    try:
        report = all_probes.look([])
    finally:
        release.set()
    assert findings(report) == [("error", "raising"), ("error", "hanging"), ("warning", "hanging")]
    assert "KeyError: ('…', '…', 'http://…@proxy/x')" in report.text() and "no answer within 0.2 s" in report.text()
    assert "hunter" not in report.text() + report.json()


def test_an_import_that_fails_within_a_probe_names_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    @probe.probe("importing")
    def imports(_site: Site) -> Iterator[ProbeFinding]:
        """Something is so."""
        import_module("no_such_library")
        yield from ()

    monkeypatch.setattr(all_probes, "OF_DEPLOYMENT", (imports,))
    told(all_probes.look([]), "error", "importing", "a library does not import", "no_such_library", "-m pip check")
