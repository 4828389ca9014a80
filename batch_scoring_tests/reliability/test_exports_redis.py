"""A sample of `python -m batch_scoring_tests.reliability.exports_redis`."""

from collections.abc import Iterator

import pytest

from batch_scoring_tests.redis_process import RedisProcess, needs_redis, running_redis
from batch_scoring_tests.reliability.export_trials import Size, Trial, run
from batch_scoring_tests.reliability.exports_redis import OF_REDIS, RedisPlace

pytestmark = needs_redis


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    with running_redis() as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("trial", OF_REDIS, ids=lambda trial: trial.__name__)
def test_no_row_is_missing_doubled_or_mixed(server: RedisProcess, trial: Trial) -> None:
    (report,) = run(RedisPlace(server, trial.__name__), Size(repeats=1, rows=500), [trial])
    assert report.trials > 0
    assert report.violations == []
