"""The subcommand `repair-instance`: SQLite databases that two processes created at once."""

import os
import sys
from pathlib import Path

import click

from batch_scoring.cli.parameters import Subcommand
from batch_scoring.defs.execution import sqlite_databases
from batch_scoring.runtime.printable import guarded


@click.command("repair-instance", cls=Subcommand)
def repair_instance() -> int:
    """Repair the SQLite databases of the Dagster instance in DAGSTER_HOME.

    Two processes that create a database at the same time leave two revisions in it, and from then on every command
    fails. The newest revision is kept. The exit code is 1 if a database has revisions that this Dagster does not know,
    2 if DAGSTER_HOME is not a folder.
    """
    out, err = guarded(sys.stdout), guarded(sys.stderr)
    home = os.environ.get("DAGSTER_HOME", "")
    if not Path(home).is_absolute() or not Path(home).is_dir():
        err.write(f"batch-scoring: DAGSTER_HOME is {home!r}; expected the absolute path of the instance's folder\n")
        return 2
    repaired = sqlite_databases.repair(Path(home))
    left = [str(file) for file in sqlite_databases.files(Path(home)) if len(sqlite_databases.revisions(file)) > 1]
    out.writelines(f"{line}\n" for line in repaired or ([] if left else [f"{home}: nothing to repair"]))
    if left:
        err.write(f"batch-scoring: {', '.join(left)}: revisions that this Dagster does not know; take a newer one\n")
    return 1 if left else 0
