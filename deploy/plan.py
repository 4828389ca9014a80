"""How many GPUs to plan for, and the resulting values for a spec and the chart.

A day of R rows is scored by n steps at once (`scoring.shards: fan_out`, at most `scoring.max_shards` of them). Each has
its own pod with one GPU, which takes s seconds to start (node, image, model) and then scores r rows per second. D days,
the newest and those of a backfill, must be scored within a window of W seconds:

    seconds of a step            t = s + R / (n r)
    steps of a day               n = ceil(R / (r (W - s))), the fewest with t <= W; or as given by --shards
    steps one after the other    k = floor(W / t), on one GPU
    GPUs                         g = ceil(D n / k), at least; a single day keeps n of them busy
    hours that pods hold a GPU   h = D n t / 3600

More steps make a day faster, at the cost of one start each. A step holds its GPU from the moment its pod has a node,
including the start; the additional cost of a node (idle minutes before an autoscaler removes it) is not part of h.

    python deploy/plan.py --rows 500e6 --rows-per-second 200e3 --window-hours 1
    python deploy/plan.py --rows 500e6 --rows-per-second 200e3 --window-hours 4 --backfill-days 30 --shards 8
"""

import argparse
import math
import sys
from dataclasses import dataclass

CPU_ROWS_PER_SECOND = 3.9e6
"""The engine with a small MLP on 2 cores (README, Speed); `python -m benchmarks.engine` measures your CPU."""
MOST_SHARDS = 200
"""Maximum of `scoring.max_shards`."""
ROUNDING = 1e-9
"""Tolerance, so that a step that exactly fills the window fits into it."""


@dataclass(frozen=True)
class Plan:
    """The result of the formulas."""

    shards: int
    gpus: int
    step_seconds: float
    gpu_hours: float


def plan(
    rows: float, rows_per_second: float, window_seconds: float, days: int = 1, start_seconds: float = 0, shards: int = 0
) -> Plan:
    """Apply the formulas.

    Args:
        rows: rows of a day.
        rows_per_second: speed of one pod.
        window_seconds: time in which all days must be scored.
        days: total number of days.
        start_seconds: time from a pod's creation to its first row.
        shards: steps of a day; 0 for the fewest possible.

    Raises:
        ValueError: no number of GPUs is enough.
    """
    if rows <= 0 or rows_per_second <= 0 or days < 1:
        raise ValueError("expected rows, rows per second and days above 0")
    scoring = window_seconds - start_seconds
    if scoring <= 0:
        raise ValueError(f"a pod needs {start_seconds:g} s to start, but the window has only {window_seconds:g} s")
    needed = max(1, math.ceil(rows / (rows_per_second * scoring) - ROUNDING))
    shards = shards or needed
    if shards < needed:
        raise ValueError(f"with {shards} shards a day takes longer than the window; expected at least {needed}")
    if shards > MOST_SHARDS:
        raise ValueError(f"a day would need {shards} shards; scoring.max_shards allows {MOST_SHARDS}")
    step = start_seconds + rows / (shards * rows_per_second)
    gpus = math.ceil(days * shards / math.floor(window_seconds / step + ROUNDING))
    return Plan(shards, gpus, step, days * shards * step / 3600)


def main(arguments: list[str] | None = None) -> int:
    """Run the command: print the plan; return 2 if the window cannot be met."""
    parser = argparse.ArgumentParser(description="How many GPUs to plan. Formulas: the docstring of this file.")
    parser.add_argument("--rows", type=float, required=True, help="rows of a day, for example 500e6")
    parser.add_argument(
        "--rows-per-second",
        type=float,
        default=CPU_ROWS_PER_SECOND,
        help="rows per second of one pod: rows_per_second in the materialisations of predictions, on one GPU; "
        "default: %(default)g, a small MLP on 2 cores",
    )
    parser.add_argument("--window-hours", type=float, required=True, help="hours in which all days must be scored")
    parser.add_argument("--backfill-days", type=int, default=0, help="days besides the newest; default: 0")
    parser.add_argument("--start-seconds", type=float, default=120, help="until a pod's first row; default: 120")
    parser.add_argument("--shards", type=int, default=0, help="steps of a day, if more than the fewest")
    options = parser.parse_args(arguments)
    days = options.backfill_days + 1
    try:
        found = plan(
            options.rows,
            options.rows_per_second,
            options.window_hours * 3600,
            days,
            options.start_seconds,
            options.shards,
        )
    except ValueError as error:
        sys.stderr.write(f"plan.py: {error}\n")
        return 2
    parts = math.ceil(options.rows / found.shards)
    sys.stdout.write(
        f"GPUs                      {found.gpus}   concurrency.pools.defaultLimit, and the node pool's maximum size\n"
        f"scoring.max_shards        {found.shards}   with scoring.shards: fan_out, if it is more than 1\n"
        f"scoring.rows_per_shard    {min(parts, 1_000_000)}   at most: a step scores whole shards\n"
        f"a day alone               {found.step_seconds / 60:.1f} minutes, if its steps run at the same time\n"
        f"GPU hours, {days} days{'':<10} {found.gpu_hours:.1f}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
