"""The HTTP server of the metrics."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from batch_scoring.cli.metrics.server import MetricsServer

DUE: list[float | None] = []


@pytest.fixture
def address() -> Iterator[str]:
    DUE.clear()

    def exposition(seconds: float | None) -> bytes:
        DUE.append(seconds)
        return b"a 1\n"

    with MetricsServer("127.0.0.1", 0, exposition) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def get(address: str, **headers: str) -> tuple[int, str, bytes]:
    request = urllib.request.Request(address, headers={name.replace("_", "-"): text for name, text in headers.items()})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.headers["Content-Type"], answer.read()


def test_a_scrape_is_answered_in_the_text_format(address: str) -> None:
    assert get(f"{address}/metrics?name=a") == (200, "text/plain; version=0.0.4; charset=utf-8", b"a 1\n")
    assert DUE == [None]


@pytest.mark.parametrize(("said", "due"), [("10", 8.0), ("5.0", 4.0), ("soon", None), ("-1", None), ("inf", None)])
def test_the_answer_is_due_before_prometheus_gives_up(address: str, said: str, due: float | None) -> None:
    get(f"{address}/metrics", X_Prometheus_Scrape_Timeout_Seconds=said)
    assert [due] == DUE


def test_whether_it_lives_asks_no_store(address: str) -> None:
    assert get(f"{address}/healthy")[::2] == (200, b"ok\n")
    assert b"/metrics" in get(address)[2]
    assert DUE == []


def test_any_other_path_is_not_found(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{address}/etc/passwd")
