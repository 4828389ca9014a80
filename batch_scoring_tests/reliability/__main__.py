"""Run all scenarios with their full counts: `python -m batch_scoring_tests.reliability [NAME …]`."""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from batch_scoring_tests.reliability import failing, retained, scenarios, triggered
from batch_scoring_tests.reliability.scenarios import Report
from batch_scoring_tests.reliability.store import Store, running_store

_COLUMNS = f"{'scenario':48}  {'trials':>6}  {'violations':>10}  {'reused':>6}  {'seconds':>7}"


def main() -> int:
    """Run the scenarios, printing a line each; return 1 if there was any violation."""
    parser = argparse.ArgumentParser(prog="python -m batch_scoring_tests.reliability", description=__doc__)
    parser.add_argument("names", nargs="*", help="scenarios to run, all if none is named")
    parser.add_argument("--folder", type=Path, help="where; memory (/dev/shm) if it is there")
    options = parser.parse_args()
    reports = []
    with ExitStack() as stack:
        stores: list[Store] = []

        def store() -> Store:
            if not stores:
                stores.append(stack.enter_context(running_store()))
                os.environ.update(stores[0].environment)  # as this process and its children reach it
            return stores[0]

        runs: dict[str, Callable[[Path], Report]] = {
            "killed": lambda folder: scenarios.killed(folder, 50),
            "raced": lambda folder: scenarios.raced(folder, 20),
            "rescored-disk": lambda folder: scenarios.rescored(folder, 24, 8),
            "rescored-s3": lambda folder: scenarios.rescored(folder, 24, 8, store()),
            "faulted": lambda folder: scenarios.faulted(folder, store(), 3),
            "long-lived": lambda folder: scenarios.long_lived(folder, 400),
            "ended-disk": lambda folder: scenarios.ended(folder, 20),
            "ended-s3": lambda folder: scenarios.ended(folder, 20, store()),
            "retained": lambda folder: retained.retained(folder, 30),
            "uploaded": lambda folder: triggered.uploaded(folder, store()),
            "killed-in-turn": lambda folder: triggered.killed_in_turn(folder, 30),
            "failing": lambda folder: failing.failing(folder, store(), (*failing.QUICK, *failing.SLOW, *failing.ON_S3)),
            "failing-ahead": lambda folder: failing.failing_clock(folder, failing.AHEAD),
            "failing-back": lambda folder: failing.failing_clock(folder, failing.BACK),
            "failing-store": lambda folder: triggered.failing_store(folder, store()),
        }
        unknown = set(options.names) - set(runs)
        if unknown:
            parser.error(f"no scenario {', '.join(sorted(unknown))}; there are: {', '.join(runs)}")
        print(_COLUMNS, flush=True)
        for name in options.names or runs:
            with _work_folder(options.folder) as folder:
                reports.append(report := runs[name](folder))
            print(
                f"{report.scenario:48}  {report.trials:>6}  {len(report.violations):>10}  {report.reused:>6}  "
                f"{report.seconds:>7.0f}  {report.notes}",
                *report.violations,
                sep="\n    ",
                flush=True,
            )
    return 1 if any(report.violations for report in reports) else 0


@contextmanager
def _work_folder(chosen: Path | None) -> Iterator[Path]:
    memory = Path("/dev/shm")
    folder = Path(
        tempfile.mkdtemp(prefix="reliability_", dir=chosen or (memory if os.access(memory, os.W_OK) else None))
    )
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
