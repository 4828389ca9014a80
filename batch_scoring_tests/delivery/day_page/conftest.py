"""Two decided days of a pipeline."""

import pyarrow as pa
import pytest

from batch_scoring_tests.tiny import TinyProject

DAYS = ("2024-03-04", "2024-03-05")


@pytest.fixture
def decided(tiny: TinyProject) -> TinyProject:
    """Two days: 120 keys, then 100 of them and 20 others; decided by a rule, a cap per colour and a hold-out."""
    tiny.spec["decisions"] = {
        "eligible": {"small": "n < 4"},
        "actions": {
            "call": {"at_least": 0.3, "most": 30, "most_per": {"c": 12}, "holdout": {"share": 0.2, "salt": "s"}},
            "mail": {"at_least": 0.2},
        },
    }
    tiny.spec["exports"] = {
        "calls": {"to": "file", "path": f"{tiny.name}/exports/calls_{{day}}.csv", "of": "decisions"}
    }
    tiny.deliver("v1", seed=5)
    for start, day in zip((0, 20), DAYS, strict=True):
        rows = tiny.rows(120, start)
        if day == DAYS[1]:
            rows = rows.set_column(4, "c", pa.array(["<b>red</b>" if c == "red" else c for c in rows["c"].to_pylist()]))
        tiny.land(day, rows)
        assert tiny.run(day).success
    return tiny
