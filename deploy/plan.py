"""How many GPUs to plan, and what to write into a spec and the chart's values for them.

A day of R rows is scored by n steps at once (`scoring.shards: fan_out`, at most `scoring.max_shards` of them). Each has
a pod of its own with one GPU, which takes s seconds to start (node, image, model) and then scores r rows a second. D
days, the newest and those of a backfill, must be scored within a window of W seconds:

    seconds of a step            t = s + R / (n r)
    steps of a day               n = ceil(R / (r (W - s))), the fewest with t <= W; or as many as --shards says
    steps one after the other    k = floor(W / t), on one GPU
    GPUs                         g = ceil(D n / k), at least; one day alone keeps n of them busy
    hours that pods hold a GPU   h = D n t / 3600

More steps make a day shorter and cost a start each. A step holds its GPU from the moment its pod has a node, starts
included; what a node costs beyond that (it idles for minutes before an autoscaler takes it away) is not in h.

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
"""What `scoring.max_shards` takes."""
ROUNDING = 1e-9
"""A step that fills the window to the second fits into it."""


@dataclass(frozen=True)
class Plan:
    """What the formulas give."""

    shards: int
    gpus: int
    step_seconds: float
    gpu_hours: float


def plan(
    rows: float, rows_per_second: float, window_seconds: float, days: int = 1, start_seconds: float = 0, shards: int = 0
) -> Plan:
    """Apply the formulas.

    Args:
        rows: of a day.
        rows_per_second: that one pod scores.
        window_seconds: within which all days are to be scored.
        days: all of them.
        start_seconds: from a pod's creation to its first row.
        shards: steps of a day; 0: the fewest.

    Raises:
        ValueError: no number of GPUs can do it.
    """
    if rows <= 0 or rows_per_second <= 0 or days < 1:
        raise ValueError("expected rows, rows a second and days above 0")
    scoring = window_seconds - start_seconds
    if scoring <= 0:
        raise ValueError(f"a pod needs {start_seconds:g} s to start, and the window has {window_seconds:g} s")
    needed = max(1, math.ceil(rows / (rows_per_second * scoring) - ROUNDING))
    shards = shards or needed
    if shards < needed:
        raise ValueError(f"with {shards} shards a day takes longer than the window; expected at least {needed}")
    if shards > MOST_SHARDS:
        raise ValueError(f"a day would need {shards} shards; scoring.max_shards takes {MOST_SHARDS}")
    step = start_seconds + rows / (shards * rows_per_second)
    gpus = math.ceil(days * shards / math.floor(window_seconds / step + ROUNDING))
    return Plan(shards, gpus, step, days * shards * step / 3600)


def main(arguments: list[str] | None = None) -> int:
    """Print the plan; 2 if the window cannot be met."""
    parser = argparse.ArgumentParser(description="How many GPUs to plan. Formulas: the docstring of this file.")
    parser.add_argument("--rows", type=float, required=True, help="rows of a day, for example 500e6")
    parser.add_argument(
        "--rows-per-second",
        type=float,
        default=CPU_ROWS_PER_SECOND,
        help="rows that one pod scores: rows_per_second of the materialisations of predictions, on one GPU; "
        "default: %(default)g, a small MLP on 2 cores",
    )
    parser.add_argument("--window-hours", type=float, required=True, help="hours within which all must be scored")
    parser.add_argument("--backfill-days", type=int, default=0, help="days to catch up besides the newest; default: 0")
    parser.add_argument("--start-seconds", type=float, default=120, help="of a pod, to its first row; default: 120")
    parser.add_argument("--shards", type=int, default=0, help="steps of a day, if not the fewest: a day is done sooner")
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
        f"GPUs                      {found.gpus}   concurrency.pools.defaultLimit, and the node pool's most nodes\n"
        f"scoring.max_shards        {found.shards}   with scoring.shards: fan_out, if it is more than 1\n"
        f"scoring.rows_per_shard    {min(parts, 1_000_000)}   at most: a step takes whole shards\n"
        f"a day alone               {found.step_seconds / 60:.1f} minutes, where its steps run at once\n"
        f"GPU hours, {days} days{'':<10} {found.gpu_hours:.1f}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
