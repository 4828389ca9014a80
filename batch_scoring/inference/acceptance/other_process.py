"""What a transform gives in another process: with another seed of Python's `hash`, and with the clock set ahead.

    python -m batch_scoring.inference.acceptance.other_process FOLDER     is run there; the folder holds what it needs

A function that cannot be imported there (it is in a script, or within another function) is not tested: the golden rows'
engineered values, which every load compares, will show it later.
"""

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
from batch_scoring.inference.inputs.transform import Function, Transform

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
    """Engineered features of the same rows in another process."""

    seeded: pa.Table
    """With another seed of `hash`."""
    ahead: pa.Table
    """With the clock set ahead as well."""


def run(transform: Transform, rows: pa.RecordBatch) -> Found | None:
    """Engineered features as another process makes them; None if it cannot run the function."""
    place = _place(transform.function)
    if place is None:
        return None
    with tempfile.TemporaryDirectory(prefix="batch_scoring_transform_") as name:
        folder = Path(name)
        (folder / _PLACE).write_text(json.dumps(place))
        _write(folder / _ROWS, rows)
        for file, data in fitted.dump(transform.fitted).items():
            (folder / file).write_bytes(data)
        command = [sys.executable, "-m", __name__, name]
        path = os.pathsep.join(part or os.getcwd() for part in sys.path)  # noqa: PTH109
        environment = {**os.environ, "PYTHONHASHSEED": "random", "PYTHONPATH": path}
        try:
            subprocess.run(command, env=environment, capture_output=True, timeout=TIMEOUT, check=True)
        except (subprocess.SubprocessError, OSError):
            return None
        return Found(_read(folder / _SEEDED), _read(folder / _AHEAD))


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
        known.extend(path for path in paths if path not in known)
    clock = _Clock()
    importlib.import_module(place["module"])  # with all libraries, which keep the clock as it is
    clock.replace()
    clock.ahead = AHEAD  # what the module computes when it is imported is the clock's too
    own = place["module"].rpartition(".")[0]
    for name in [name for name in sys.modules if name == place["module"] or (own and name.startswith(f"{own}."))]:
        del sys.modules[name]
    function = getattr(importlib.import_module(place["module"]), place["name"])
    transform = Transform(function, fitted.load(files), rows.schema, pa.schema([]))
    batch = rows.combine_chunks().to_batches()[0]
    for name, clock.ahead in ((_SEEDED, datetime.timedelta()), (_AHEAD, AHEAD)):
        made, _ = transform.run(batch, typed=False)
        _write(folder / name, made)


class _Clock:
    """The clock of this process, which can be set ahead for what is imported from then on.

    The classes of `datetime` are replaced, as libraries for tests do it: this process does nothing else.
    """

    def __init__(self) -> None:
        self.ahead = datetime.timedelta()

    def replace(self) -> None:
        """Put itself in the place of the system's clock."""
        self._replace_classes()
        self._replace_functions()
        if pandas := sys.modules.get("pandas"):
            for name in ("now", "today", "utcnow"):
                setattr(pandas.Timestamp, name, staticmethod(self._shifted(getattr(pandas.Timestamp, name))))

    def _shifted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **options: original(*arguments, **options) + self.ahead

    def _replace_classes(self) -> None:
        clock = self

        class OfAll(type):
            def __instancecheck__(cls, value: object) -> bool:
                return isinstance(value, _DateTime if issubclass(cls, _DateTime) else _Date)

        class Date(_Date, metaclass=OfAll):
            @classmethod
            def today(cls) -> Any:  # noqa: ANN401
                return _Date.today() + clock.ahead

        class DateTime(_DateTime, metaclass=OfAll):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Any:  # noqa: ANN401
                return _DateTime.now(tz) + clock.ahead

            @classmethod
            def today(cls) -> Any:  # noqa: ANN401
                return _DateTime.now() + clock.ahead

            @classmethod
            def utcnow(cls) -> Any:  # noqa: ANN401
                return _DateTime.now(datetime.UTC).replace(tzinfo=None) + clock.ahead

        datetime.date, datetime.datetime = Date, DateTime  # type: ignore[misc]

    def _replace_functions(self) -> None:
        now, ns, local, utc = time.time, time.time_ns, time.localtime, time.gmtime
        time.time = lambda: now() + self.ahead.total_seconds()
        time.time_ns = lambda: ns() + int(self.ahead.total_seconds()) * 10**9
        time.localtime = lambda seconds=None: local(time.time() if seconds is None else seconds)
        time.gmtime = lambda seconds=None: utc(time.time() if seconds is None else seconds)


def _write(file: Path, rows: pa.RecordBatch) -> None:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_batch(rows)


def _read(file: Path) -> pa.Table:
    with pa.OSFile(str(file), "rb") as source:
        return pa.ipc.open_file(source).read_all()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
