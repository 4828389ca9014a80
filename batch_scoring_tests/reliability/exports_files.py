"""Trials of exports to files, on a disk and on S3: `python -m batch_scoring_tests.reliability.exports_files`."""

import csv
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batch_scoring.delivery.exports.files import FileSink
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring.storage.folders.s3 import S3Folder
from batch_scoring_tests.reliability.disks import fill, mounted
from batch_scoring_tests.reliability.emptied import emptied
from batch_scoring_tests.reliability.export_trials import (
    TRIALS,
    Place,
    Rows,
    Trial,
    broken,
    down,
    full,
    print_table,
    run,
    size_wanted,
)
from batch_scoring_tests.reliability.store import running_store

ON_S3: tuple[Trial, ...] = tuple(trial for trial in TRIALS if trial not in (broken, down, full))
"""A store that is gone is tried where S3Folder is; a bucket is never full."""
CAN_MOUNT = os.getuid() == 0 and Path("/proc/self/mounts").exists()
"""Whether a small disk can be mounted."""


@dataclass(frozen=True)
class FilesPlace:
    """A folder, on a disk or on S3."""

    uri: str
    store: Mapping[str, str] = field(default_factory=dict)
    """Variables with which S3 is reached; the process that child processes are forked from may not have them."""
    points = ("before the file is there", "before the switch", "after the switch")

    def sink(self) -> FileSink:
        """The sink."""
        os.environ |= self.store
        return FileSink(f"{self.uri}/scores_{{day}}.csv")

    def section(self, unique: str) -> dict[str, Any]:
        """See `ExportedPlace.section`."""
        return {"to": "file", "path": f"{self.uri}/{unique}_{{day}}.csv"}

    def environment(self) -> Mapping[str, str]:
        """See `ExportedPlace.environment`."""
        return self.store

    def shown(self, day: str) -> Rows:
        """The rows of a day as a reader sees them who follows the manifest, by Python's own reader of CSV."""
        folder = open_folder(self.uri)
        while True:
            try:
                manifest = json.loads(folder.read(f"scores_{day}.manifest.json"))
            except OSError:
                return []
            try:
                content = folder.read(manifest["file"]).decode()
            except FileNotFoundError:  # two versions came since
                continue
            return sorted((int(row["id"]), float(row["score"])) for row in csv.DictReader(content.splitlines()))

    def arm(self, point: str, kill: Callable[[], None]) -> None:
        """Have this process killed before the file gets its name, before its manifest is replaced, or after it was."""
        for folder in (LocalFolder, S3Folder):
            put_file, put_if = folder.put_file, folder.put_if

            def armed_file(own: object, scratch: Path, path: str, put_file: Callable[..., int] = put_file) -> int:
                if point == "before the file is there" and not path.endswith(".json"):
                    kill()
                return put_file(own, scratch, path)

            def armed_if(
                own: object, path: str, data: bytes, token: str | None, put_if: Callable[..., None] = put_if
            ) -> None:
                if point == "before the switch":
                    kill()
                put_if(own, path, data, token)
                if point == "after the switch":
                    kill()

            folder.put_file = armed_file  # type: ignore[method-assign,assignment]
            folder.put_if = armed_if  # type: ignore[method-assign,assignment]

    def stop(self) -> None:
        """Take the disk away: what is left in its place is no folder."""
        Path(self.uri).rename(f"{self.uri}.gone")
        Path(self.uri).touch()

    def start(self) -> None:
        """Bring it back."""
        Path(self.uri).unlink()
        Path(f"{self.uri}.gone").rename(self.uri)

    @contextmanager
    def little_space(self) -> Iterator[tuple[Place, Callable[[], Callable[[], None]]]]:
        """A small disk."""
        with mounted() as disk:
            assert disk, "nothing may be mounted here"
            yield FilesPlace(f"{disk}/lists"), lambda: fill(disk)


def on_disk() -> tuple[Trial, ...]:
    """The trials that this machine can make on a disk."""
    return tuple(trial for trial in (*TRIALS, emptied) if CAN_MOUNT or trial is not full)


def main() -> int:
    """Run the trials; return 1 if there was any violation."""
    size = size_wanted(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        print("on a disk")
        violations = print_table(run(FilesPlace(f"{folder}/lists"), size, on_disk()))
    with running_store() as store:
        print("on S3 (moto)")
        os.environ |= store.environment
        place = FilesPlace(f"s3://{store.new_bucket()}/lists", store.environment)
        violations += print_table(run(place, size, ON_S3))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
