"""Real watchers for tests of metrics: Prometheus and Alertmanager, and a page of samples in place of the exporter."""

import json
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from batch_scoring.metrics.catalogue import Sample
from batch_scoring.metrics.prometheus import exposition
from batch_scoring_tests.redis_process import free_port

LONGEST_START = 60
"""Seconds."""


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test where a program is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"no {program} on this machine")


def until(found: Callable[[], Any], seconds: float, what: str) -> Any:  # noqa: ANN401  (what is found)
    """What is found in the end."""
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, f"not within {seconds} seconds: {what}"
        time.sleep(0.05)
    return result


class SamplePage:
    """A page of metrics that changes as a test tells it."""

    def __init__(self) -> None:
        self.samples: Callable[[], Sequence[Sample]] = list
        self.is_down = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(503 if outer.is_down else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(exposition(outer.samples()))

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.port = int(self._server.server_address[1])

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def sample_page() -> Iterator[SamplePage]:
    """A page that is served."""
    page = SamplePage()
    try:
        yield page
    finally:
        page.stop()


class Prometheus:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression now."""
        found = get(f"{self.address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        series: list[dict[str, Any]] = found["data"]["result"]
        return series


def get(address: str) -> Any:  # noqa: ANN401  (JSON)
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.load(answer)


def prometheus_settings(folder: Path, example: Path, scraped: int) -> dict[str, Any]:
    """The example of `deploy/`, with a page on this machine, and intervals of a second.

    Args:
        folder: with the rules.
        example: the file.
        scraped: port of the page of metrics.
    """
    settings: dict[str, Any] = yaml.safe_load(example.read_text("utf-8"))
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(folder / name) for name in settings["rule_files"]]
    [job] = settings["scrape_configs"]
    job |= {"scrape_timeout": "1s", "static_configs": [{"targets": [f"127.0.0.1:{scraped}"]}]}
    return {**settings, "alerting": {}}


@contextmanager
def running_prometheus(folder: Path, settings: Mapping[str, Any]) -> Iterator[Prometheus]:
    """A server with these settings, which writes into the folder."""
    port = free_port()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(dict(settings)))
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'series'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with _running(command, folder / "prometheus.log", f"http://127.0.0.1:{port}/-/ready"):
        yield Prometheus(port)


@contextmanager
def running_alertmanager(folder: Path, settings: Mapping[str, Any]) -> Iterator[int]:
    """An Alertmanager with these settings; its port."""
    port = free_port()
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(dict(settings)))
    command = ["prometheus-alertmanager", f"--config.file={folder / 'alertmanager.yml'}", "--log.level=warn"]
    command += [f"--storage.path={folder / 'alerts'}", f"--web.listen-address=127.0.0.1:{port}"]
    command += ["--cluster.listen-address="]
    with _running(command, folder / "alertmanager.log", f"http://127.0.0.1:{port}/-/ready"):
        yield port


@contextmanager
def _running(command: list[str], log: Path, ready: str) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            until(lambda: answers(ready) or process.poll() is not None, LONGEST_START, f"{command[0]} is ready")
            assert process.poll() is None, log.read_text("utf-8")
            yield
        finally:
            process.kill()
            process.wait()


def answers(address: str) -> bool:
    """Whether a server answers there."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
