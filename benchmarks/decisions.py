"""The decisions of a day, compared with the same in pandas and, if it is installed, in DuckDB's SQL.

    python -m benchmarks.decisions --rows 1000000 --rounds 5

Three rules of eligibility; then a call for scores of at least 0.5, at most 10,000 rows and 800 a region, with a control
group of 5 %; then an e-mail for scores of at least 0.4. The rows are in memory as record batches. Each contender runs
in a process of its own, and all must give every key the same action and arm. `CPU` is that of all threads; `memory` is
the peak beyond the record batches, by row.
"""

import argparse
import hashlib
import importlib.util
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from batch_scoring.storage.parquet import READ_ROWS
from benchmarks import side_by_side
from benchmarks.side_by_side import PROJECT, Measures

SALT, SHARE, MOST, MOST_PER_REGION = "calls-2026", 0.05, 10_000, 800
SECTION = {
    "eligible": {"adult": "age >= 18", "consent": "consent", "open": "not blocked"},
    "actions": {
        "call": {
            "at_least": 0.5,
            "most": MOST,
            "most_per": {"region": MOST_PER_REGION},
            "holdout": {"share": SHARE, "salt": SALT},
        },
        "email": {"at_least": 0.4},
    },
}
REGIONS = [f"region {number}" for number in range(20)]


def main() -> None:
    """Run the command: measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Compare the decisions of a day with pandas and DuckDB.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _measure(CONTENDERS[arguments.child[0]], Path(arguments.child[1]))
        return
    names = [name for name in CONTENDERS if name != "DuckDB" or importlib.util.find_spec("duckdb")]
    with side_by_side.working_folder(None) as folder:
        file = folder / "rows.arrow"
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table(1).schema) as writer:
            writer.write_table(table(arguments.rows), READ_ROWS)
        found = side_by_side.rounds({name: partial(_run, name, file) for name in names}, arguments.rounds)
    if len({measures["decisions"] for measured in found.values() for measures in measured}) > 1:
        raise ValueError("the contenders decide differently")
    print(f"\n{arguments.rows:,} rows, {arguments.rounds} rounds\n")
    print(
        side_by_side.table(["", "CPU / ours", "CPU, s", "memory, bytes a row"], [_line(name, found) for name in names])
    )
    print(f"\n{side_by_side.machine()}")


def table(rows: int) -> pa.Table:
    """The same rows every time: scores with 24 bits, as a network gives them, and a missing age in a hundred."""
    chance = np.random.default_rng(0)
    return pa.table(
        {
            "id": [f"customer-{number:09d}" for number in range(rows)],
            "prob_class_1": chance.random(rows, dtype=np.float32),
            "age": pa.array(chance.integers(10, 90, rows), mask=chance.random(rows) < 0.01),
            "consent": chance.random(rows) < 0.9,
            "blocked": chance.random(rows) < 0.02,
            "region": pa.DictionaryArray.from_arrays(chance.integers(0, len(REGIONS), rows), REGIONS).cast(pa.string()),
        }
    )


def ours(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """The package's own."""
    from batch_scoring.config.delivery_spec import Decisions
    from batch_scoring.delivery.decisions.decide import decide

    day = decide(iter(rows.to_batches()), Decisions.model_validate(SECTION), "id", rows.schema, salt="churn")
    return day.action, day.arm == 1


def pandas(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """A data frame, sorted, with cumulative sums by region."""
    import pandas as pd

    frame = rows.to_pandas()
    refused = [frame.age.isna(), frame.age < 18, ~frame.consent, frame.blocked]
    names = ["ineligible:adult:unknown", "ineligible:adult", "ineligible:consent", "ineligible:open"]
    frame["reason"] = np.select(refused, names, "")
    called = frame[(frame.reason == "") & (frame.prob_class_1 >= 0.5)].copy()
    called["digest"] = [hashlib.md5(f"{SALT}:{key}".encode()).hexdigest() for key in called.id]
    called["control"] = [int(digest[:8], 16) / 2**32 < SHARE for digest in called.digest]
    called["tie"] = called.digest.str[8:24]
    called = called.sort_values(["prob_class_1", "tie"], ascending=[False, True])
    treated = ~called.control
    called = called[treated.groupby(called.region).cumsum() - treated < MOST_PER_REGION]
    treated = ~called.control
    called = called[treated.cumsum() - treated < MOST]
    frame["action"] = 0
    frame.loc[called.index[~called.control], "action"] = 1
    control = pd.Series(False, index=frame.index)
    control[called.index[called.control]] = True
    email = (frame.reason == "") & (frame.action == 0) & ~control & (frame.prob_class_1 >= 0.4)
    frame.loc[email, "action"] = 2
    return frame.action.to_numpy(), control.to_numpy()


def duckdb(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Window functions in SQL."""
    import duckdb

    found = duckdb.sql(QUERY).to_arrow_table()
    assert len(found) == len(rows)
    return found["action"].to_numpy(), found["control"].to_numpy()


QUERY = f"""
WITH day AS (
    SELECT id, region, prob_class_1 AS score,
           CASE WHEN age IS NULL THEN 'ineligible:adult:unknown' WHEN age < 18 THEN 'ineligible:adult'
                WHEN NOT consent THEN 'ineligible:consent' WHEN blocked THEN 'ineligible:open' END AS reason
    FROM rows
), drawn AS (
    SELECT *, md5('{SALT}:' || id) AS digest, ('0x' || substr(digest, 1, 8))::ubigint < {SHARE} * 4294967296 AS control
    FROM day WHERE reason IS NULL AND score >= 0.5
), of_group AS (
    SELECT *, sum((NOT control)::int) OVER (
        PARTITION BY region ORDER BY score DESC, substr(digest, 9, 16) ROWS UNBOUNDED PRECEDING
    ) - (NOT control)::int AS before FROM drawn
), of_all AS (
    SELECT *, sum((NOT control)::int) OVER (ORDER BY score DESC, substr(digest, 9, 16) ROWS UNBOUNDED PRECEDING)
              - (NOT control)::int AS ahead
    FROM of_group WHERE before < {MOST_PER_REGION}
), called AS (SELECT id, control FROM of_all WHERE ahead < {MOST})
SELECT id, coalesce(control, false) AS control,
       CASE WHEN NOT control THEN 1 WHEN control IS NULL AND reason IS NULL AND score >= 0.4 THEN 2 ELSE 0 END AS action
FROM day LEFT JOIN called USING (id) ORDER BY id
"""

Contender = Callable[[pa.Table], tuple[np.ndarray, np.ndarray]]
CONTENDERS: dict[str, Contender] = {"batch_scoring": ours, "pandas": pandas, "DuckDB": duckdb}


def _run(name: str, file: Path) -> Measures:
    command = ["-m", "benchmarks.decisions", "--child", name, str(file)]
    return side_by_side.reported(side_by_side.run(command, cwd=PROJECT)[1])


def _measure(contender: Contender, file: Path) -> None:
    """Decide in this process, after a first batch has loaded what is imported."""
    with pa.OSFile(str(file)) as source, pa.ipc.open_file(source) as reader:
        rows = reader.read_all()
    contender(rows[:1_000])
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
    held, begin = side_by_side.peak_memory(), time.process_time()
    action, control = contender(rows)
    cpu = time.process_time() - begin
    used = (side_by_side.peak_memory() - held) * 2**20 / len(rows)
    decisions = zlib.crc32(action.astype(np.uint8).tobytes() + control.astype(np.uint8).tobytes())
    side_by_side.report({"cpu": cpu, "memory": used, "decisions": decisions})


def _line(name: str, found: dict[str, list[Measures]]) -> list[str]:
    return [
        name,
        side_by_side.ratio(found, name, "batch_scoring", "cpu"),
        f"{side_by_side.median(found, name, 'cpu'):.2f}",
        f"{side_by_side.median(found, name, 'memory'):.0f}",
    ]


if __name__ == "__main__":
    main()
