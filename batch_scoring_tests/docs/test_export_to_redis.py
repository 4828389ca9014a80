"""The guide's example for Redis: its spec is valid, and its service finds what the export has written."""

import random
import re
from typing import Any

import pyarrow as pa
import yaml

from batch_scoring.config.delivery_spec import Decisions, RedisExport
from batch_scoring.config.loader import PROJECT
from batch_scoring.delivery.exports.redis.server import address_of
from batch_scoring.delivery.exports.redis.sink import RedisSink
from batch_scoring.delivery.exports.sink import Delivery
from batch_scoring_tests.deliveries import delivery_of
from batch_scoring_tests.redis_process import PASSWORD, needs_redis, running_redis

GUIDE = (PROJECT / "docs/guides/exports-redis.md").read_text("utf-8")
USERS, ITEMS, TOP = 50, 40, 10


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
    return str(found)


def night(seed: int) -> dict[str, list[tuple[float, int]]]:
    """A score and an item for each pair, by user, the highest first."""
    chosen = random.Random(seed)
    return {
        f"u{user}": sorted(((chosen.random(), item) for item in chosen.sample(range(1000), ITEMS)), reverse=True)
        for user in range(USERS)
    }


def delivery(day: str, scores: dict[str, list[tuple[float, int]]]) -> Delivery:
    """What the decisions of the example select: the top ten of each user, in the order of all rows' ranks."""
    top = sorted(((pair, user) for user, pairs in scores.items() for pair in pairs[:TOP]), reverse=True)
    table = pa.table({"user_id": [user for _, user in top], "item_id": [item for (_, item), _ in top]})
    return delivery_of(table, day, pipeline="shop", export="recommendations")


@needs_redis
def test_every_user_gets_the_top_ten_of_the_last_night() -> None:
    spec = yaml.safe_load(block("yaml"))
    export = RedisExport.model_validate(spec["exports"]["recommendations"])
    (action,) = Decisions.model_validate(spec["decisions"]).actions.values()
    assert action.most_per == {export.key: TOP}
    assert {export.key, export.value} == set(spec["input"]["attributes"])
    with running_redis() as server:
        sink = RedisSink(export, server.url)
        service: dict[str, Any] = {"address": server.url}
        exec(compile(block("python"), "the guide's service", "exec"), service)
        assert service["recommended"]("u1") == []
        for seed, day in enumerate(("2026-11-27", "2026-11-28")):
            scores = night(seed)
            found = delivery(day, scores)
            assert list(sink.problems(found.schema)) == []
            assert sink.deliver(found).outcome == "exported"
            expected = {user: [item for _, item in pairs[:TOP]] for user, pairs in scores.items()}
            assert {user: service["recommended"](user) for user in expected} == expected
        assert service["recommended"]("somebody else") == []
        named = set(re.findall(r"`(\w+)`", GUIDE.partition("The fields are ")[2].partition("the prefix before")[0]))
        assert set(server.client().hgetall("rec:current")) == named


@needs_redis
def test_the_rights_that_the_guide_grants_are_enough() -> None:
    *rights, keys = re.findall(r"\*\*Rights\*\*: `(.*?)`", GUIDE)[0].split()
    export = RedisExport.model_validate(yaml.safe_load(block("yaml"))["exports"]["recommendations"])
    with running_redis() as server:
        server.client().acl_setuser(
            "exporter", enabled=True, passwords=[f"+{PASSWORD}"], keys=[keys.lstrip("~")], commands=rights
        )
        sink = RedisSink(export, server.url_of("exporter"))
        found = delivery("2026-11-28", night(0))
        assert list(sink.problems(found.schema)) == []
        assert sink.deliver(found).outcome == "exported"


def test_the_example_of_an_address_can_be_read() -> None:
    (url,) = re.findall(r"RECOMMENDATIONS_REDIS='(.*)'", GUIDE)
    assert address_of(url) == "rediss://cache.example.org:6379/0"
