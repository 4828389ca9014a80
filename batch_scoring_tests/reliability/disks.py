"""A small real disk that can be made full or read-only. Mounting it requires a privilege."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def mounted() -> Iterator[Path | None]:
    """A disk of 4 MB; None where nothing may be mounted."""
    with tempfile.TemporaryDirectory(prefix="batch_scoring_disk_") as place:
        command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            yield None
            return
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path) -> Callable[[], None]:
    """Leave no byte; gives what frees them again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        size = 65_536
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2
    return ballast.unlink


def lock(disk: Path) -> Callable[[], None]:
    """Make it read-only; gives what undoes that."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    return lambda: subprocess.run(["mount", "-o", "remount,rw", disk], check=True) and None
