"""Programs in processes of their own that are forked from one which has the libraries imported.

What a program costs to start, a second or more of CPU time, is spent once in each of pytest's workers.
"""

import atexit
import importlib
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "batch_scoring_tests.reliability.processes",
        "boto3.session",
        "dagster._cli",
        "dagster._core.storage.sqlite_storage",
        "dagster_k8s",
        "s3transfer.manager",
    ]
)


class Forked:
    """A program of one of the installed packages; of `subprocess.Popen` it has what a stand-in for machines needs."""

    def __init__(
        self, module: str, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: Path
    ) -> None:
        """Start `module`.main() with its arguments, as a session of its own that writes into a file."""
        call = (module, list(arguments), str(cwd), dict(env), str(output))
        self._process = SERVER.Process(target=_main, args=call)
        self._process.start()
        assert self._process.pid
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """Its exit code, negative of a signal, or None."""
        return self._process.exitcode

    def wait(self) -> None:
        """Wait until it is gone."""
        self._process.join()


def _main(module: str, arguments: list[str], cwd: str, env: dict[str, str], output: str) -> None:
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    with Path(output).open("wb") as log, Path(os.devnull).open("rb") as nothing:
        for number, file in enumerate((nothing, log, log)):
            os.dup2(file.fileno(), number)
    sys.argv = [module, *arguments]
    torch.set_num_threads(int(env.get("OMP_NUM_THREADS", "1")))  # which torch reads when it is imported
    try:
        importlib.import_module(module).main()
    finally:
        atexit._run_exitfuncs()
