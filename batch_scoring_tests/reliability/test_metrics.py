"""What the metrics say of a real run that is killed, within the next scrape."""

from datetime import UTC, datetime
from pathlib import Path

from batch_scoring.metrics import catalogue
from batch_scoring.metrics.catalogue import Metric
from batch_scoring.metrics.day_samples import of_pipeline
from batch_scoring_tests.reliability.processes import Child, run_elsewhere, site_of
from batch_scoring_tests.tiny import DAY, TinyProject


def value(tiny: TinyProject, metric: Metric, *labels: str) -> float | None:
    found = of_pipeline(tiny.pipeline, datetime.now(UTC))
    return next((one.value for one in found if one.metric is metric and one.labels[1:] == labels), None)


def test_a_killed_run_leaves_its_day_in_progress_until_another_run_scores_it(tiny: TinyProject) -> None:
    tiny.spec["scoring"]["rows_per_shard"] = 20_000
    tiny.write_spec()
    tiny.land(DAY, tiny.rows(400_000))
    pinned = Path(tiny.pipeline.output.uri, f"state/dt={DAY}/input.json")
    began = datetime.now(UTC).timestamp()
    assert Child(site_of(tiny), [DAY]).go().kill_when(pinned.exists, 0.1), "it was over before it was killed"
    since = value(tiny, catalogue.IN_PROGRESS_SINCE)
    assert since and began <= since <= datetime.now(UTC).timestamp()
    assert value(tiny, catalogue.RECENT_PARTITIONS, "in_progress") == 1
    assert value(tiny, catalogue.FAILED_RUNS, "lost") == 0, "nobody could record it"
    [outcome] = run_elsewhere(site_of(tiny), DAY)
    assert outcome.error is None
    assert value(tiny, catalogue.IN_PROGRESS_SINCE) is None
    assert value(tiny, catalogue.RECENT_PARTITIONS, "scored") == 1
    assert value(tiny, catalogue.DAY_ROWS, "scored") == 400_000
