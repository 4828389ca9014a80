"""Alerts by action: a team's own channels, told once about each published version of a recent day."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_scoring.operations.alerting import collector
from batch_scoring.storage.state import PublishedDay, PublishedPart, ShardStats
from batch_scoring_tests.receivers import LOG, WebServer
from batch_scoring_tests.tiny import TinyProject, days_ago

Tick = Callable[[], str]
Decide = Callable[..., str]


@pytest.fixture
def fraud(tiny: TinyProject, web: WebServer, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """A pipeline whose action `review` is announced to a team."""
    tiny.spec["decisions"] = {"actions": {"review": {"at_least": 0.9}}}
    tiny.spec["alerts"] = {"actions": {"review": {"channels_from": "FRAUD_URLS"}}}
    tiny.write_spec()
    monkeypatch.setenv("FRAUD_URLS", web.url)
    monkeypatch.setenv("DAGSTER_UI_URL", "http://ui/")
    return tiny


@pytest.fixture
def tick(instance: dg.DagsterInstance, fraud: TinyProject) -> Tick:
    return lambda: collector.tick(instance, [fraud.pipeline], LOG)


def publish(
    tiny: TinyProject,
    day: str,
    rows: int,
    digest: str,
    *,
    start: int = 0,
    held: int = 0,
    is_ranked: bool = True,
    actions: Mapping[str, int] | None = None,
    prefix: str = "k",
    **changes: object,
) -> None:
    """Publish a day's decisions: of 100 keys from `start` on, by rank, `held` are held out and `rows` act."""
    path = f"dt={day}/{digest * 32}-00000000.parquet"
    table = tiny.pipeline.output.subfolder("tables/decisions")
    with table.scratch() as scratch:
        columns = {
            "id": [f"{prefix}{n}" for n in range(start, start + 100)],
            "action": ["none"] * held + ["review"] * rows + ["none"] * (100 - rows - held),
            "rank": pa.array(list(range(1, held + rows + 1)) + [None] * (100 - rows - held), pa.int32()),
            "score": [n / 100 for n in range(100)],
        }
        if not is_ranked:
            columns["rank"] = pa.nulls(100, pa.int32())
        pq.write_table(pa.table(columns), scratch)
        table.put_file(scratch, path)
    counts = actions or {"review": rows, "none": 100 - rows}
    stats = ShardStats(digest=digest * 32, source="s", run_id="r", rows_in=100, rows=100, actions=counts)
    published = PublishedDay(
        pipeline=tiny.name,
        day=day,
        step="decisions",
        run_id="r",
        finished_at=datetime.now(UTC),
        fingerprint="f",
        code="c",
        shards=(stats,),
        table=PublishedPart(transaction=1, version=1, files=(path,)),
    )
    tiny.state.put_published_day(published.model_copy(update=changes))


@pytest.fixture
def decide(fraud: TinyProject, tick: Tick) -> Decide:
    """Publish a day's decisions, today's if no other is named, and let the alerts look."""

    def published(rows: int, digest: str = "a", *, day: str = days_ago(0), **changes: Any) -> str:  # noqa: ANN401
        publish(fraud, day, rows, digest, **changes)
        return tick()

    return published


def titles(web: WebServer) -> list[str]:
    return [post["title"] for post in web.posts]


def test_the_team_is_told_once_how_many_rows_have_the_action(
    fraud: TinyProject, web: WebServer, tick: Tick, decide: Decide
) -> None:
    assert tick() == "no new alerts" and web.posts == []
    assert decide(12, day=days_ago(1)) == "FRAUD_URLS: 1 new; delivered 1 by action"
    (post,) = web.posts
    assert post["title"] == f"{fraud.name} {days_ago(1)}: 12 rows with the action review"
    assert post["message"].splitlines() == [
        "12 of 100 rows have the action review",
        f"http://ui/assets/{fraud.name}/decisions?partition={days_ago(1)}",
    ]
    assert tick() == "no new alerts" and len(web.posts) == 1


def test_a_corrected_day_is_told_again_with_what_was_told_before(
    fraud: TinyProject, web: WebServer, decide: Decide
) -> None:
    decide(12)
    decide(3, "b")
    assert web.posts[1]["title"] == f"{fraud.name} {days_ago(0)}: 3 rows with the action review, corrected"
    assert "corrected: 12 rows had it before" in web.posts[1]["message"]
    decide(0, "c")
    assert web.posts[2]["title"] == f"{fraud.name} {days_ago(0)}: 0 rows with the action review, corrected"


def test_a_day_that_is_decided_anew_with_the_same_rows_is_not_told_again(
    fraud: TinyProject, web: WebServer, decide: Decide
) -> None:
    decide(12)
    assert decide(12, "b") == "no new alerts"
    decide(12, "c", start=1)
    assert titles(web)[1:] == [f"{fraud.name} {days_ago(0)}: 12 rows with the action review, corrected"]


@pytest.mark.parametrize(("is_ranked", "named"), [(True, "rank: k5, k6"), (False, "score: k16, k15")])
def test_the_control_group_is_not_named_and_without_ranks_the_highest_scores_are(
    fraud: TinyProject, web: WebServer, decide: Decide, is_ranked: bool, named: str
) -> None:
    fraud.spec["alerts"]["actions"]["review"]["keys"] = 2
    fraud.write_spec()
    decide(12, held=5, is_ranked=is_ranked)
    assert f"first by {named}\n" in web.posts[0]["message"]


def test_keys_are_named_by_rank_if_the_spec_allows_it_and_the_control_group_is_counted(
    fraud: TinyProject, web: WebServer, tick: Tick
) -> None:
    fraud.spec["alerts"]["actions"]["review"]["keys"] = 3
    fraud.write_spec()
    publish(fraud, days_ago(0), 12, "a")
    day = fraud.published_day("decisions", days_ago(0))
    held = day.shards[0].model_copy(update={"arms": {"review": {"treated": 12, "control": 2}}})
    fraud.state.put_published_day(day.model_copy(update={"shards": (held,)}))
    tick()
    assert web.posts[0]["message"].splitlines()[1:3] == [
        "2 more are held out as its control group: leave them alone",
        "first by rank: k0, k1, k2",
    ]


def test_decisions_that_are_damaged_are_told_without_keys_and_delay_no_other_team(
    fraud: TinyProject, web: WebServer, tick: Tick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALES_URLS", web.url)
    fraud.spec["decisions"]["actions"]["call"] = {}
    fraud.spec["alerts"]["actions"]["review"]["keys"] = 3
    fraud.spec["alerts"]["actions"]["call"] = {"channels_from": "SALES_URLS"}
    fraud.write_spec()
    publish(fraud, days_ago(0), 12, "a", actions={"review": 12, "call": 7})
    (path,) = fraud.published_day("decisions", days_ago(0)).table.files
    fraud.pipeline.output.subfolder("tables/decisions").put(path, b"no Parquet")
    tick()
    assert sorted(post["title"].partition(": ")[2] for post in web.posts) == [
        "12 rows with the action review",
        "7 rows with the action call",
    ]
    assert not any("first by" in post["message"] for post in web.posts)


def test_a_key_makes_no_line_of_its_own(fraud: TinyProject, web: WebServer, tick: Tick) -> None:
    fraud.spec["alerts"]["actions"]["review"]["keys"] = 1
    fraud.write_spec()
    publish(fraud, days_ago(0), 12, "a", prefix="k\nhttp://elsewhere/")
    tick()
    assert web.posts[0]["message"].splitlines()[1] == r"first by rank: k\u000ahttp://elsewhere/0"


def test_few_rows_old_days_and_days_decided_before_the_first_look_are_silent(
    fraud: TinyProject, web: WebServer, decide: Decide
) -> None:
    fraud.spec["alerts"]["actions"]["review"]["at_least"] = 13
    fraud.write_spec()
    publish(fraud, days_ago(0), 12, "a")
    publish(fraud, days_ago(3), 50, "a")
    long_ago = datetime.now(UTC) - timedelta(hours=25)
    assert decide(50, day=days_ago(1), finished_at=long_ago) == "no new alerts" and web.posts == []
    decide(13, "b")
    assert titles(web) == [f"{fraud.name} {days_ago(0)}: 13 rows with the action review, corrected"]


def test_a_channel_that_is_down_gets_its_message_later_and_no_other_channel_gets_it(
    web: WebServer, tick: Tick, decide: Decide, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody = WebServer()
    try:
        monkeypatch.setenv("ALERT_URLS", everybody.url)
        web.is_down = True
        assert "1 wait for FRAUD_URLS[1] (json) since" in decide(12)
        web.is_down = False
        assert tick() == "delivered 1 by action"
        assert len(web.posts) == 1 and everybody.posts == []
    finally:
        everybody.stop()


def test_a_variable_that_is_not_set_is_reported_and_its_messages_come_once_it_is(
    fraud: TinyProject, web: WebServer, tick: Tick, decide: Decide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FRAUD_URLS")
    assert decide(12) == f"FRAUD_URLS is not set: {fraud.name} review are not announced"
    monkeypatch.setenv("FRAUD_URLS", "nonsense")
    assert "FRAUD_URLS[1] is not understood by apprise" in tick()
    monkeypatch.setenv("FRAUD_URLS", web.url)
    tick()
    assert titles(web) == [f"{fraud.name} {days_ago(0)}: 12 rows with the action review"]
