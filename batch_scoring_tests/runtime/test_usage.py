"""What a step uses, held against what the kernel says of its process from outside."""

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter, sleep

import pytest

from batch_scoring.runtime.usage import Meter, Reservation, Usage

WORK = """
import dataclasses, hashlib, json, sys, threading
from batch_scoring.runtime.usage import Meter

def burn():
    for _ in range(60):
        hashlib.sha256(block).digest()

ballast = bytearray(b"x") * 150_000_000
block = bytes(5_000_000)
meter = Meter()
print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=burn) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(dataclasses.asdict(meter.lap())), flush=True)
sys.stdin.readline()
"""
"""Two threads that work outside of the interpreter's lock, beside 150 MB."""

TICKS = os.sysconf("SC_CLK_TCK")

on_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel is asked through /proc")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_bytes(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@on_linux
def test_cpu_time_and_memory_are_those_that_the_kernel_counts() -> None:
    with subprocess.Popen([sys.executable, "-c", WORK], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin and process.stdout and process.stdout.readline() == "ready\n"
        before, began = cpu_seconds(process.pid), perf_counter()
        print(file=process.stdin, flush=True)
        usage = Usage(**json.loads(process.stdout.readline()))
        used, wall, peak = cpu_seconds(process.pid) - before, perf_counter() - began, peak_bytes(process.pid)
        print(file=process.stdin, flush=True)
    assert used > 0.2, "or there is nothing to measure"
    assert usage.cpu_seconds == pytest.approx(used, abs=4 / TICKS)
    assert usage.wall_seconds == pytest.approx(wall, rel=0.3)
    assert usage.memory_byte_seconds / usage.wall_seconds == pytest.approx(peak, rel=0.01)
    assert 150e6 < peak < 400e6


@on_linux
def test_the_memory_of_the_process_that_started_this_one_does_not_count() -> None:
    child = (
        "import resource; from batch_scoring.runtime.usage import peak_memory;"
        "print(peak_memory(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    parent = (
        f"import subprocess, sys; x = bytearray(b'x') * 300_000_000; subprocess.run([sys.executable, '-c', {child!r}])"
    )
    said = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True).stdout
    own, kernels = map(int, said.split())
    assert own < 100e6
    assert kernels > 300e6, "the kernel's other figure would do by now"


def test_laps_and_overhead_are_all_that_is_used() -> None:
    began, meter = perf_counter(), Meter()
    sleep(0.02)
    meter.end_overhead()
    sleep(0.03)
    shard = meter.lap()
    sleep(0.01)
    meter.end_overhead()
    wall = perf_counter() - began
    assert shard.wall_seconds >= 0.03 and meter.overhead.wall_seconds >= 0.03
    assert (shard + meter.overhead).wall_seconds == pytest.approx(wall, abs=0.005)
    assert not shard.is_reserved and shard.gpu_seconds == 0


def test_gpus_and_what_is_reserved_are_times_wall_time() -> None:
    """No GPU is needed to multiply; that cuda counts as one is said where the model is loaded."""
    meter = Meter(Reservation(cores=4, memory_bytes=8 * 2**30, gpus=2))
    meter.gpus = 1
    sleep(0.02)
    usage = meter.lap()
    meter.gpus = 0
    sleep(0.01)
    later = meter.lap()
    wall = usage.wall_seconds
    assert wall >= 0.02 and usage.is_reserved
    assert (usage.gpu_seconds, later.gpu_seconds) == (wall, 0)
    assert usage.reserved_cpu_seconds == pytest.approx(4 * wall, abs=1e-3)
    assert usage.reserved_memory_byte_seconds == pytest.approx(8 * 2**30 * wall, rel=1e-2)
    assert usage.reserved_gpu_seconds == pytest.approx(2 * wall, abs=1e-3)


def test_usages_add_up() -> None:
    one, other = Usage(1, 2, 3, 4, 5, 6, 7), Usage(10, 20, 30, 40, 50, 60, 70)
    assert one + other == Usage(11, 22, 33, 44, 55, 66, 77)
    assert sum([one, other], Usage()) == one + other
