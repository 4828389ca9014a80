"""Files that `batch-scoring score` reads and writes, in this process or in another."""

import gzip
import io
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandera.pandas  # noqa: F401  (a child shall find it imported)
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from batch_scoring.cli.score import score_files as adhoc
from batch_scoring.cli.score.score_files import ScoreRequest
from batch_scoring.runtime import signals
from batch_scoring_tests.reliability.processes import Site
from batch_scoring_tests.tiny import TinyProject

SERVER = multiprocessing.get_context("forkserver")
SCORES = ["id", "prediction", "prediction_proba", "prob_class_0", "prob_class_1", "model_version"]

BAD = """id,x,y,n,c
good1,1.5,2.5,1,red
good2,2.5,,2,mauve
retyped,1.5,2.5,1.5,red
beyond,1001,2.5,1,red
,1.5,2.5,1,red
short,1.5
infinite,inf,2.5,1,red
good1,7.5,2.5,1,red
raises,666,2.5,1,red
nan,555,2.5,1,red
good3,3.5,2.5,1,
"""


class Terminal(io.StringIO):
    """A stream on which a bar is drawn."""

    def isatty(self) -> bool:
        return True


def score(
    tiny: TinyProject, source: Path | str, target: Path | str, *, err: io.StringIO | None = None, **options: bool
) -> tuple[int, str, str]:
    """The exit code, and what stands on standard output and standard error."""
    out, err = io.StringIO(), err or io.StringIO()
    code = adhoc.run(tiny.pipeline, ScoreRequest(str(source), str(target), **options), out, err)
    return code, out.getvalue(), err.getvalue()


def put(file: Path, rows: pa.Table | str, *, age: float = 0) -> Path:
    """A file in the format of its name, as old as is said."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(rows, str):
        file.write_bytes(gzip.compress(rows.encode()) if file.suffix == ".gz" else rows.encode())
    elif file.suffix == ".parquet":
        pq.write_table(rows, file)
    elif "json" in file.name:
        put(file, "".join(f"{json.dumps(row)}\n" for row in rows.to_pylist()))
    else:
        sink = io.BytesIO()
        pyarrow.csv.write_csv(rows, sink)
        put(file, sink.getvalue().decode())
    stamp = time.time() - age
    os.utime(file, (stamp, stamp))
    return file


def read(file: Path) -> pa.Table:
    """Its rows, whatever its format."""
    if file.name.endswith(".parquet"):
        return pq.read_table(file)
    return pyarrow.csv.read_csv(file)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file and folder below, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def dawdle(tiny: TinyProject, seconds: float) -> None:
    """Let a forward pass take a while."""
    network = (tiny.folder / "network.py").read_text()
    nap = f"        import time; time.sleep({seconds})\n        result ="
    tiny.write_code(network=network.replace("        result =", nap))


def wait_until(holds: Callable[[], object]) -> None:
    """Wait for something that another process does."""
    limit = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


def score_elsewhere(
    site: Site, place: Path, source: Path, target: Path, said: Path | None = None, hears_late: bool = False
) -> None:
    """The command, in a process that hangs in its first forward pass of rows.

    `said`: where it says what ends it; `hears_late`: it does not hang, and is told to end while it removes a scratch
    file after the output is shown.
    """
    if said:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
        signals.watch("batch-scoring")
    unlink = Path.unlink

    def told(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".tmp":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        unlink(self, missing_ok=missing_ok)

    if hears_late:
        Path.unlink = told  # type: ignore[method-assign]
    tempfile.tempdir = str(place / "locks")
    torch.set_num_threads(1)
    pipeline = site.pipeline()
    network = pipeline.load(pipeline.spec.model.network)
    forward = network.forward

    def hangs(self: torch.nn.Module, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        if list(target.parent.glob(".*.tmp")) and not hears_late:
            time.sleep(60)
        return forward(self, numeric, categorical)

    network.forward = hangs
    request = ScoreRequest(str(source), str(target), overwrite=said is not None)
    sys.exit(adhoc.run(pipeline, request, io.StringIO(), io.StringIO()))
