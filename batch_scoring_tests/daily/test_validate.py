"""Files into shards of features: what is reported, and what becomes of a shard whose file changes meanwhile."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from batch_scoring.daily.publish import DayStep
from batch_scoring.daily.validate import prepare
from batch_scoring.errors import SupersededError
from batch_scoring.runtime.step_context import StepContext
from batch_scoring_tests.tiny import DAY, TinyProject, run_of_test


def test_an_added_column_is_reported_and_ignored(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(3).append_column("extra", pa.array(["?"] * 3)))
    tiny.run(steps=["raw_input"])
    lines: list[str] = []
    prepare(
        DayStep(tiny.pipeline, DAY, "validated_features"),
        tiny.state.day_input(DAY),
        StepContext("a-run", run_of_test().started, lines.append),
    )
    [line] = [line for line in lines if "extra" in line]
    assert line.endswith("a.parquet: columns that the schema does not know are ignored: extra")


class Meddler(StepContext):
    """A run during which somebody writes into the file that it reads."""

    @contextlib.contextmanager
    def timed(self, activity: str) -> Iterator[None]:
        with super().timed(activity):
            yield
        if activity == "write" and not self.seconds.get("meddled"):
            self.seconds["meddled"] = 1.0
            self.log("now")


def test_a_shard_of_a_file_that_is_written_to_meanwhile_is_never_finished(tiny: TinyProject) -> None:
    """Else a later run of the old file, put back with its old time, would take the mix for its own shard."""
    tiny.land(DAY, b"id,x,y,n,c\n" + b"".join(b"k%d,1,1,1,red\n" % n for n in range(50)), "a.csv")
    tiny.run(steps=["raw_input"])
    file = Path(tiny.pipeline.landing.uri, f"dt={DAY}", "a.csv")
    step = DayStep(tiny.pipeline, DAY, "validated_features")
    run = Meddler("r", datetime.now(UTC), lambda _: file.write_bytes(b"id,x,y,n,c\n"))
    with pytest.raises(SupersededError, match="has changed"):
        prepare(step, tiny.state.day_input(DAY), run)
    assert step.table.table.folder.list() == []
