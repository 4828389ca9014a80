"""Which tables a pipeline has, and where: users and other tools hold on to these names."""

from batch_scoring.daily.tables import TABLES, quarantine_schema
from batch_scoring_tests.tiny import DAY, TinyProject


def test_each_table_has_its_folder_name_and_partitions(tiny: TinyProject) -> None:
    output = tiny.pipeline.output.uri
    found = {name: table(tiny.pipeline) for name, table in TABLES.items()}
    assert {name: (table.folder.uri, table.name, table.partition_by) for name, table in found.items()} == {
        "validated_features": (f"{output}/tables/validated_features", "validated_features", ("dt",)),
        "predictions": (f"{output}/tables/predictions", "predictions", ("dt",)),
        "decisions": (f"{output}/tables/decisions", "decisions", ("dt",)),
        "quarantine": (f"{output}/tables/quarantine", "quarantine", ("dt", "stage")),
    }


def test_the_quarantine_reads_the_same_before_and_after_its_first_row(tiny: TinyProject) -> None:
    rows = tiny.rows(10)
    tiny.land(DAY, rows)
    tiny.run(steps=["raw_input", "validated_features"])
    empty = tiny.read(table="quarantine")
    assert empty.num_rows == 0 and empty.schema.equals(quarantine_schema(tiny.pipeline))
    tiny.land(DAY, b"id,x,y,n,c\nk,5000,1,1,red\n", "b.csv")
    tiny.run(steps=["raw_input", "validated_features"])
    one = tiny.read(table="quarantine")
    assert one.num_rows == 1 and one.schema.equals(empty.schema)
