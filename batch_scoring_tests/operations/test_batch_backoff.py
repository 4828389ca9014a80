"""Smaller batches after runs that may have run out of memory."""

import dagster as dg

from batch_scoring.operations.batch_backoff import batch_backoff
from batch_scoring_tests.ended_runs import ended
from batch_scoring_tests.tiny import DAY, TinyProject


def test_a_run_after_one_that_was_killed_halves_its_batches_and_gives_the_same_scores(tiny: TinyProject) -> None:
    tiny.spec["scoring"] |= {"batch_rows": 256}
    tiny.write_spec()
    tiny.land(DAY, tiny.rows(500))
    tiny.run()
    before = tiny.read()
    tiny.land(DAY, tiny.rows(500))  # another version of the same rows
    with dg.DagsterInstance.ephemeral() as instance:
        assert batch_backoff(instance, tiny.pipeline, DAY) == 0
        ended(instance, tiny, "gone")
        ended(instance, tiny, "gone again")
        assert batch_backoff(instance, tiny.pipeline, DAY) == 2
        result = tiny.run(instance=instance)
        (event,) = result.asset_materializations_for_node(f"{tiny.name}__predictions")
        assert event.metadata["batch_rows"].value == 64
        assert batch_backoff(instance, tiny.pipeline, DAY) == 0, "one has gone well since"
    columns = [name for name in before.column_names if name != "scored_at"]
    assert tiny.read().select(columns).equals(before.select(columns))
