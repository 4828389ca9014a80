"""What a transform gives in another process: with another seed of Python's `hash`, and with the clock set ahead.

    python -m batch_scoring.inference.acceptance.functions.other_process FOLDER

is run there; the folder holds what it needs.

A function that cannot be imported there (it is in a script, or within another function) is not tested: the golden rows'
engineered values, which every load compares, will show it later.
"""

import contextlib
import datetime
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from batch_scoring.inference.inputs import fitted
from batch_scoring.inference.inputs.transform import Function, Transform, whole

AHEAD = datetime.timedelta(days=400)
"""By how much the clock is set ahead: another day, month and year."""

TIMEOUT = 120
"""Seconds."""

_Date = datetime.date
_DateTime = datetime.datetime

_PLACE, _ROWS = "place.json", "rows.arrow"
_SEEDED, _AHEAD = "seeded.arrow", "ahead.arrow"


@dataclass(frozen=True)
class Found:
    """Engineered features of the same rows in another process; None where the function does not run."""

    seeded: pa.Table | None = None
    """With another seed of `hash`."""
    ahead: pa.Table | None = None
    """With the clock set ahead as well, also when its module was imported."""


def run(transform: Transform, rows: pa.RecordBatch) -> Found:
    """Engineered features as another process makes them."""
    place = _place(transform.function)
    if place is None:
        return Found()
    with tempfile.TemporaryDirectory(prefix="batch_scoring_transform_") as name:
        folder = Path(name)
        (folder / _PLACE).write_text(json.dumps(place))
        _write(folder / _ROWS, rows)
        for file, data in fitted.dump(transform.fitted).items():
            (folder / file).write_bytes(data)
        command = [sys.executable, "-m", __name__, name]
        path = os.pathsep.join(part or os.getcwd() for part in sys.path)  # noqa: PTH109
        environment = {**os.environ, "PYTHONHASHSEED": "random", "PYTHONPATH": path}
        with contextlib.suppress(subprocess.SubprocessError, OSError):  # what it has written counts
            subprocess.run(command, env=environment, capture_output=True, timeout=TIMEOUT, check=False)
        return Found(_read_if_written(folder / _SEEDED), _read_if_written(folder / _AHEAD))


def _place(function: Function) -> dict[str, Any] | None:
    """Where a function is to be imported from."""
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    if module == "__main__" or not name.isidentifier() or getattr(sys.modules.get(module), name, None) is not function:
        return None
    parts = module.split(".")
    packages = (".".join(parts[:count]) for count in range(1, len(parts)))
    paths = {package: list(sys.modules[package].__path__) for package in packages if package in sys.modules}
    return {"module": module, "name": name, "packages": paths}


def _main(folder: Path) -> None:
    place = json.loads((folder / _PLACE).read_text())
    rows = _read(folder / _ROWS)
    files = {file.name: file.read_bytes() for file in folder.iterdir() if fitted.is_of_fitted(file.name)}
    for package, paths in place["packages"].items():
        known = importlib.import_module(package).__path__
        for path in [path for path in paths if path not in known]:
            known.append(path)  # a namespace package's path has no extend
    # all libraries are imported now: those with C code of their own do not bear another datetime
    _write(folder / _SEEDED, _made(place, fitted.load(files), rows))
    _set_clock_ahead()
    own = place["module"].rpartition(".")[0]
    for name in [name for name in sys.modules if name == place["module"] or (own and name.startswith(f"{own}."))]:
        del sys.modules[name]
    _write(folder / _AHEAD, _made(place, fitted.load(files), rows))


def _made(place: dict[str, Any], state: fitted.Fitted, rows: pa.Table) -> pa.RecordBatch:
    function = getattr(importlib.import_module(place["module"]), place["name"])
    made, raising = Transform(function, state, rows.schema, pa.schema([])).run(whole(rows), typed=False)
    if raising:
        sys.exit(f"it raises: {raising[0].detail}")
    return made


def _set_clock_ahead() -> None:
    """Set the clock of this process ahead, for what is imported from now on.

    The classes of `datetime` are replaced, as libraries for tests do it: this process does nothing else.
    """

    class OfAll(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, _DateTime if issubclass(cls, _DateTime) else _Date)

    class Date(_Date, metaclass=OfAll):
        @classmethod
        def today(cls) -> Any:  # noqa: ANN401
            return _Date.today() + AHEAD

    class DateTime(_DateTime, metaclass=OfAll):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:  # noqa: ANN401
            return _DateTime.now(tz) + AHEAD

        @classmethod
        def today(cls) -> Any:  # noqa: ANN401
            return _DateTime.now() + AHEAD

        @classmethod
        def utcnow(cls) -> Any:  # noqa: ANN401
            return _DateTime.now(datetime.UTC).replace(tzinfo=None) + AHEAD

    datetime.date, datetime.datetime = Date, DateTime  # type: ignore[misc]
    seconds = int(AHEAD.total_seconds())
    now, ns, local, utc = time.time, time.time_ns, time.localtime, time.gmtime
    time.time, time.time_ns = (lambda: now() + seconds), (lambda: ns() + seconds * 10**9)
    time.localtime = lambda at=None: local(time.time() if at is None else at)
    time.gmtime = lambda at=None: utc(time.time() if at is None else at)
    if pandas := sys.modules.get("pandas"):
        for name in ("now", "today", "utcnow"):
            setattr(pandas.Timestamp, name, staticmethod(_shifted(getattr(pandas.Timestamp, name))))


def _shifted(clock: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **options: clock(*arguments, **options) + AHEAD


def _write(file: Path, rows: pa.RecordBatch) -> None:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_batch(rows)


def _read_if_written(file: Path) -> pa.Table | None:
    try:
        return _read(file)
    except (OSError, pa.ArrowException):
        return None


def _read(file: Path) -> pa.Table:
    with pa.OSFile(str(file), "rb") as source:
        return pa.ipc.open_file(source).read_all()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
