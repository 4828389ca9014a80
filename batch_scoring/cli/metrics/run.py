"""The exporter's process: it reads the state for each scrape, and on its own for a file or CloudWatch."""

import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn, TextIO

from batch_scoring.cli.metrics import heartbeats
from batch_scoring.cli.metrics.server import MetricsServer
from batch_scoring.config.loader import survey_pipelines
from batch_scoring.metrics import cloudwatch
from batch_scoring.metrics.catalogue import Sample
from batch_scoring.metrics.collect import ANSWER_SECONDS, Deployment
from batch_scoring.metrics.prometheus import exposition
from batch_scoring.runtime.printable import printable

FIRST_SECONDS = 60.0
"""How long the first reading may take, which reads every document."""
FILE_EVERY_SECONDS = 60.0


class Exporter:
    """What is told to monitoring systems, and what is said about it on stderr."""

    def __init__(self, errors: TextIO) -> None:
        """Load the pipelines.

        Raises:
            SpecError: there is no pipeline, or the data root is invalid.
        """
        self._survey, self._errors = survey_pipelines(), errors
        self._deployment = Deployment(self._survey, heartbeats.read if heartbeats.are_known() else None)
        self._said: dict[str, str] = {}
        for broken in self._survey.broken:
            self._say(f"{broken.name} is left out of the deployment: {'; '.join(broken.errors)}")

    @property
    def pipelines(self) -> str:
        """Names of the pipelines, for people."""
        return ", ".join(sorted(self._survey.names))

    def samples(self, seconds: float = ANSWER_SECONDS) -> list[Sample]:
        """Read all samples; what cannot be read is said once, and once more when it changes."""
        found = self._deployment.samples(seconds)
        errors = self._deployment.errors
        for name in sorted(self._said.keys() - errors.keys()):
            self._say(f"{name} is read again")
        for name, error in errors.items():
            if self._said.get(name) != error:
                self._say(f"{name} cannot be read: {error}")
        self._said = errors
        return found

    @property
    def has_errors(self) -> bool:
        """Whether something could not be read the last time, or a pipeline is left out."""
        return bool(self._said or self._survey.broken)

    def text(self, seconds: float | None = None) -> bytes:
        """The metrics as Prometheus reads them."""
        return exposition(self.samples(ANSWER_SECONDS if seconds is None else seconds))

    def _say(self, line: str) -> None:
        self._errors.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: {printable(line)}\n")
        self._errors.flush()

    def attempt(self, what: str, send: Callable[[], object]) -> bool:
        """Whether an output succeeded; its error is said and does not end the process: the next round may succeed."""
        try:
            send()
        except OSError as error:
            self._say(f"cannot {what}: {error.strerror or error}")
            return False
        except Exception as error:  # else the thread would end, and the file grow old while the process lives
            self._say(f"cannot {what}: {type(error).__name__}: {error}")
            return False
        return True


def once(file: Path | None, namespace: str, out: TextIO, errors: TextIO) -> int:
    """Read the metrics once; 0, or 1 if something could not be read or sent.

    Args:
        file: to replace with them; None: none.
        namespace: of CloudWatch to send them to; empty: none.
        out: receives them if there is neither.
        errors: receives what cannot be read or sent.
    """
    exporter = Exporter(errors)
    samples = exporter.samples(FIRST_SECONDS)
    sends: list[tuple[str, Callable[[], object]]] = []
    if file:
        sends.append((f"write {file}", lambda: write(file, exposition(samples))))
    if namespace:
        sends.append(("send", lambda: _send(namespace, samples, out)))
    if not sends:
        out.write(exposition(samples).decode())
    done = [exporter.attempt(what, send) for what, send in sends]
    return 0 if all(done) and not exporter.has_errors else 1


def serve(host: str, port: int | None, file: Path | None, namespace: str, out: TextIO, errors: TextIO) -> NoReturn:
    """Serve, write and send the metrics until the process is ended.

    Args:
        host: address to listen at.
        port: to listen on; None: none.
        file: to replace every minute; None: none.
        namespace: of CloudWatch to send them to every five minutes; empty: none.
        out: receives the lines that say what is done.
        errors: receives what cannot be read or sent.

    Raises:
        OSError: the port is taken.
        SpecError: see `Exporter`.
    """
    server = None if port is None else MetricsServer(host, port, lambda seconds: exporter.text(seconds))
    exporter = Exporter(errors)
    exporter.samples(FIRST_SECONDS)  # a scrape reads only what has changed since
    if file:
        _repeat(FILE_EVERY_SECONDS, lambda: exporter.attempt(f"write {file}", lambda: write(file, exporter.text())))
        out.write(f"writing {file} every {FILE_EVERY_SECONDS:g} seconds\n")
    if namespace:
        _repeat(
            cloudwatch.EVERY_SECONDS,
            lambda: exporter.attempt("send", lambda: cloudwatch.send(namespace, exporter.samples(), _now())),
        )
        out.write(f"sending to CloudWatch every {cloudwatch.EVERY_SECONDS:g} seconds, namespace {namespace}\n")
    if server:
        out.write(f"serving http://{host}:{server.server_port}/metrics\n")
    out.write(f"pipelines: {exporter.pipelines}; end with Ctrl-C\n")
    out.flush()
    while True:
        server.serve_forever() if server else time.sleep(3600)


def write(file: Path, content: bytes) -> None:
    """Replace a file as a whole, readable by every user: another program collects it.

    Raises:
        OSError: it cannot be written.
    """
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as scratch:
        place = Path(scratch.name)
    try:
        place.write_bytes(content)
        place.chmod(0o644)
        place.replace(file)
    except OSError:
        place.unlink(missing_ok=True)
        raise


def _send(namespace: str, samples: list[Sample], out: TextIO) -> None:
    sent = cloudwatch.send(namespace, samples, _now())
    none = "" if sent else ": no day is scored yet"
    out.write(f"{sent} metrics sent to CloudWatch, namespace {namespace}{none}\n")


def _repeat(seconds: float, act: Callable[[], object]) -> None:
    """Do something now and then every so many seconds, in a thread of its own."""

    def rounds() -> None:
        while True:
            act()
            time.sleep(seconds)

    threading.Thread(target=rounds, daemon=True).start()


def _now() -> datetime:
    return datetime.now(UTC)
