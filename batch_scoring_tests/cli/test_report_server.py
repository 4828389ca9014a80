"""The server of `make dev`: pages of reports alone, under its own names alone, as long as its command runs."""

import contextlib
import http.client
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_scoring.cli.report_server import ReportServer
from batch_scoring.config.loader import PROJECT
from batch_scoring.monitoring import html
from batch_scoring_tests.browser import look, needs_browser
from batch_scoring_tests.monitoring.test_html import evidently, report
from batch_scoring_tests.tiny import TinyProject

SCRIPT = "document.title = 1"
PAGE = f"<meta charset='utf-8'>{html.policy_element([SCRIPT])}<script>{SCRIPT}</script>"
DAY_PAGE, MONTH_PAGE = "reports/dt=2024-03-04/drift.html", "reports/month=2024-03.html"


@pytest.fixture
def server(tiny: TinyProject) -> Iterator[ReportServer]:
    for page in (DAY_PAGE, MONTH_PAGE):
        tiny.pipeline.output.put(page, PAGE.encode())
    with ReportServer(lambda: [tiny.pipeline], 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(
    server: ReportServer, path: str, host: str | None = "localhost:PORT", method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host=True)
        if host is not None:
            connection.putheader("Host", host.replace("PORT", str(server.server_port)))
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def test_a_page_is_served_as_it_is_with_its_policy_and_bounds(server: ReportServer, tiny: TinyProject) -> None:
    for host, page in itertools.product(("localhost:PORT", "127.0.0.1:PORT", "[::1]:PORT"), (DAY_PAGE, MONTH_PAGE)):
        status, headers, content = ask(server, f"/{tiny.name}/{page}", host)
        assert (status, content) == (200, PAGE.encode())
        assert headers["content-security-policy"] == (
            f"{html.policy([SCRIPT])}; sandbox allow-scripts; frame-ancestors 'none'"
        )
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert headers["content-type"] == "text/html; charset=utf-8" and "Python" not in headers["server"]


def test_another_name_is_refused_with_the_names_that_are_right(server: ReportServer, tiny: TinyProject) -> None:
    for host in ("evil.example:PORT", "localhost", "localhost:1", "localhost:PORT.evil.example", None):
        status, _, content = ask(server, f"/{tiny.name}/{DAY_PAGE}", host)
        assert (host, status) == (host, 421)
        assert f"localhost:{server.server_port}" in content.decode() and b"<script" not in content


def test_nothing_but_a_page_is_served(server: ReportServer, tiny: TinyProject) -> None:
    output = Path(tiny.pipeline.output.uri)
    for name in ("state/secret.html", "landing/reports/a.html", "reports/notes.txt", "reports/.hidden.html"):
        tiny.pipeline.output.put(name, PAGE.encode())
    (output / "reports/folder.html").mkdir()
    for name in ("reports/away.html", "reports/dt=2024-03-04/away.html"):
        (output / name).symlink_to(output / "state/secret.html")
    name, page = tiny.name, "reports/month=2024-03.html"
    for path in (
        "/",
        f"/{name}",
        f"/{name}/reports/",
        f"/{name}/reports",
        f"/{name}/state/model.json",
        f"/{name}/landing/reports/a.html",
        f"/{name}/reports/../state/secret.html",
        f"/{name}/reports/%2e%2e/state/secret.html",
        f"/{name}/reports/..%2fx.html",
        f"/{name}/../{name}/{page}",
        f"/{name}/reports/deep/er/a.html",
        f"/other/{page}",
        f"/{name}/{page}%00",
        f"/{name}/reports/away.html",
        f"/{name}/reports/dt=2024-03-04/away.html",
        f"/{name}/reports/notes.txt",
        f"/{name}/reports/folder.html",
        f"http://evil.example/{name}/{page}",
        f"/{name}/reports/.hidden.html",
    ):
        status, headers, content = ask(server, path)
        assert (path, status) == (path, 404) and SCRIPT.encode() not in content
        assert "default-src 'none'" in headers["content-security-policy"]


def test_nothing_is_done_but_read(server: ReportServer, tiny: TinyProject) -> None:
    status, headers, content = ask(server, f"/{tiny.name}/{DAY_PAGE}", method="HEAD")
    assert (status, content, headers["content-length"]) == (200, b"", str(len(PAGE)))
    assert {ask(server, f"/{tiny.name}/{DAY_PAGE}", method=word)[0] for word in ("POST", "PUT", "DELETE")} == {501}


def test_a_page_without_a_policy_is_not_shown_and_says_how_to_draw_it_again(
    server: ReportServer, tiny: TinyProject
) -> None:
    tiny.pipeline.output.put(MONTH_PAGE, f"<script>{SCRIPT}</script>".encode())
    status, headers, content = ask(server, f"/{tiny.name}/{MONTH_PAGE}")
    assert status == 403 and b"drawn again" in content and headers["content-type"].startswith("text/plain")


@needs_browser
@pytest.mark.parametrize("draw", [evidently, report])
def test_a_browser_draws_what_is_served(server: ReportServer, tiny: TinyProject, draw: object, tmp_path: Path) -> None:
    tiny.pipeline.output.put(DAY_PAGE, draw())  # type: ignore[operator]
    seen = look(f"{server.url}/{tiny.name}/{DAY_PAGE}", tmp_path / "profile")
    assert "main-svg" in seen.dom and seen.title != "owned"
    assert not [line for line in seen.console if "Error" in line or "Content Security Policy" in line]


# beside a command


def test_make_dev_starts_it_around_dagster_and_no_other_server() -> None:
    commands = re.findall(r"(?m)^dev:.*\n((?:\t.*\n)+)", (PROJECT / "Makefile").read_text(encoding="utf-8"))
    (lines,) = commands
    assert (
        lines.splitlines()[-1]
        == "\t$(BIN)/python -m batch_scoring.cli.report_server $(BIN)/dagster dev -w workspace.yaml"
    )


SAYS = "import os, sys, time; print(os.environ.get('REPORTS_URL'), flush=True); time.sleep(float(sys.argv[1]))"


def beside(seconds: float, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "batch_scoring.cli.report_server", sys.executable, "-c", SAYS, str(seconds)],
        cwd=PROJECT,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def test_in_s3_and_with_another_server_none_is_started() -> None:
    for environment, url, said in (
        ({"BATCH_SCORING_DATA": "s3://bucket/scoring"}, "None", "they are in s3://bucket/scoring"),
        ({"REPORTS_URL": "https://reports.example.org"}, "https://reports.example.org", "lead to REPORTS_URL"),
    ):
        with beside(0, **environment) as command:
            out, err = command.communicate(timeout=60)
        assert (out.strip(), command.returncode) == (url, 0) and said in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_port_that_is_taken_is_said_and_the_command_goes_on_and_ends_with_its_signal(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody else has it: as good
            other.bind(("127.0.0.1", 3001))
            other.listen()
        with beside(60) as command:
            assert command.stdout and command.stdout.readline() == "None\n"
            os.killpg(command.pid, number) if number == signal.SIGINT else command.send_signal(number)
            _, err = command.communicate(timeout=30)
    assert "PORT 3001 IS TAKEN" in err and command.returncode in (1, 128 + number)
    with pytest.raises(ProcessLookupError):
        for _ in range(100):  # no orphan is left in the group
            os.killpg(command.pid, 0)
            time.sleep(0.05)
