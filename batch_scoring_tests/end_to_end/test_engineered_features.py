"""Days of a pipeline whose model makes features from columns, in Arrow and in pandas, from files to tables."""

import pyarrow as pa
import pytest

from batch_scoring_tests.engineered import deliver, engineer
from batch_scoring_tests.tiny import DAY, TinyProject, checks


def poisoned(tiny: TinyProject, rows: int = 300) -> pa.Table:
    """Rows with two for which the transform raises, one whose ratio breaks a rule, two that the network refuses."""
    table = tiny.rows(rows)
    x, y = table["x"].to_pylist(), table["y"].to_pylist()
    x[10] = x[200] = 777.0
    x[20], y[20] = 900.0, 0.0
    x[30], x[31], y[30], y[31] = 666.0, 555.0, 9.0, 9.0
    return table.set_column(1, "x", pa.array(x)).set_column(2, "y", pa.array(y))


@pytest.mark.parametrize("form", ["arrow", "pandas"])
def test_rows_without_engineered_features_are_quarantined_and_the_others_scored(tiny: TinyProject, form: str) -> None:
    engineer(tiny, form)
    deliver(tiny)
    tiny.land(DAY, poisoned(tiny))
    found = checks(tiny.run())
    assert {name for name, ok in found.items() if not ok} <= {"predictions/classes_are_balanced"}
    assert tiny.quarantined() == {
        ("k0000010", "score", "transform_raises", ""),
        ("k0000200", "score", "transform_raises", ""),
        ("k0000020", "score", "less_than_or_equal_to(500)", "ratio"),
        ("k0000030", "score", "network_raises", ""),
        ("k0000031", "score", "output_is_finite", ""),
    }
    values = {row["id"]: row["value"] for row in tiny.read(table="quarantine").to_pylist()}
    assert values["k0000010"] == "ValueError: x is 777"
    assert values["k0000020"] == "ratio is 900.0"
    assert tiny.read().num_rows == 295
    columns = tiny.read(table="validated_features").column_names
    assert columns == ["id", "x", "y", "n", "c", "source_file", "row_number", "dt"]
