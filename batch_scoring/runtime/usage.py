"""What a step uses of its machine, lap by lap: wall time, CPU time, memory and GPUs, and what is reserved for it.

It is measured of this process alone, all threads included. What a process used before the step began is in no lap:
its start, and the start of a pod.
"""

import resource
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from time import perf_counter

_DIGITS = 4
"""Of seconds, after the point."""


@dataclass(frozen=True)
class Usage:
    """What was used, and what was reserved meanwhile; the latter is 0 where nothing is."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    """User and system time of all threads."""
    memory_byte_seconds: float = 0.0
    """The largest resident memory of the process until then, times wall time."""
    gpu_seconds: float = 0.0
    """GPUs that computed, times wall time."""
    reserved_cpu_seconds: float = 0.0
    reserved_memory_byte_seconds: float = 0.0
    reserved_gpu_seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        """Both together."""
        names = [field.name for field in fields(self)]
        return Usage(**{name: round(getattr(self, name) + getattr(other, name), _DIGITS) for name in names})

    @property
    def is_reserved(self) -> bool:
        """Whether a machine was reserved, so that it costs the same however much of it was used."""
        return bool(self.reserved_cpu_seconds or self.reserved_memory_byte_seconds or self.reserved_gpu_seconds)


@dataclass(frozen=True)
class Reservation:
    """What the step's pod requests; nothing for a step without a pod of its own."""

    cores: float = 0.0
    memory_bytes: float = 0.0
    gpus: int = 0


NOTHING = Reservation()


class Meter:
    """Divides what a step uses into laps: one for each shard, and its overhead, which is everything else.

    CPU time and memory are those of the process: of two steps that run in it at once, each is charged for both.
    """

    def __init__(self, reserved: Reservation = NOTHING) -> None:
        """Begin the first lap. `reserved`: for the step."""
        self._reserved = reserved
        self._since = perf_counter(), _cpu_seconds()
        self.gpus = 0
        """GPUs in use; a change applies to the whole lap that has begun."""
        self.overhead = Usage()
        """What was used in no shard's lap."""

    def lap(self) -> Usage:
        """End a lap, begin the next one, and return what was used meanwhile."""
        (began, cpu), now = self._since, (perf_counter(), _cpu_seconds())
        self._since = now
        wall, reserved = now[0] - began, self._reserved
        return Usage(
            wall_seconds=round(wall, _DIGITS),
            cpu_seconds=round(now[1] - cpu, _DIGITS),
            memory_byte_seconds=round(peak_memory() * wall),
            gpu_seconds=round(self.gpus * wall, _DIGITS),
            reserved_cpu_seconds=round(reserved.cores * wall, _DIGITS),
            reserved_memory_byte_seconds=round(reserved.memory_bytes * wall),
            reserved_gpu_seconds=round(reserved.gpus * wall, _DIGITS),
        )

    def end_overhead(self) -> None:
        """End a lap that belongs to no shard."""
        self.overhead += self.lap()


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_memory() -> int:
    """The largest resident memory of this process so far, in bytes.

    The kernel's other figure, `ru_maxrss`, is also that of the process that started this one: it survives `exec`.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
