"""The use cases of the guide: each runs as it stands there, and what comes out is counted independently."""

import contextlib
import csv
import hashlib
import io
import re
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pandas
import pyarrow as pa
import pytest
import yaml

from batch_scoring.config.loader import PROJECT
from batch_scoring.monitoring.links import day_page
from batch_scoring.operations.alerting import collector
from batch_scoring_tests.exports import exported, manifest, tick_and_run
from batch_scoring_tests.receivers import LOG, WebServer
from batch_scoring_tests.tiny import DAY, NEXT_DAY, SCHEMA, TinyProject, checks, days_ago

GUIDE = (PROJECT / "docs/guides/use-cases.md").read_text("utf-8")
FRAUD, MARKETING, BUSINESS = (
    "High-risk rows, and a team that is told the same morning",
    "A weekly list of 10,000 customers at risk",
    "Business rules after the model",
)
NETWORK = """
import torch

class Net(torch.nn.Module):
    def __init__(self, numeric, words, outputs):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(0.2))

    def forward(self, numeric, categorical):
        risk = self.slope * numeric[:, 0]
        return torch.stack([-risk, risk], dim=1)
"""
"""Its score rises with x, from almost 0 to almost 1."""


def blocks(title: str, language: str) -> list[str]:
    """The examples of a use case."""
    section = GUIDE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def with_case(tiny: TinyProject, title: str, attributes: str) -> TinyProject:
    """Give a pipeline the sections of a use case. `attributes`: their lines in the schema."""
    tiny.write_code(schema=SCHEMA + attributes, network=NETWORK)
    tiny.deliver("v1")
    sections, *more = map(yaml.safe_load, blocks(title, "yaml"))
    tiny.spec.update(sections)
    for other in more:
        tiny.spec["exports"].update(other["exports"])
    tiny.write_spec()
    return tiny


def rows(tiny: TinyProject, count: int, shift: int = 0, **columns: Iterable[object]) -> pa.Table:
    """Rows with scores that all differ, and with attributes."""
    found = tiny.rows(count).drop_columns(["x"])
    found = found.append_column("x", pa.array(((n * 7919 + shift) % 20011) / 1000 - 10 for n in range(count)))
    for name, values in columns.items():
        found = found.drop_columns([name] if name in found.column_names else [])
        found = found.append_column(name, pa.array(values))
    return found


def ranked(tiny: TinyProject, day: str, wanted: Mapping[str, bool], salt: str, at_least: float) -> list[str]:
    """The keys that satisfy the rules and reach the threshold, the highest score first."""
    scores = dict(zip(*tiny.read(day).select(["id", "prob_class_1"]).to_pydict().values(), strict=True))
    found = [key for key, is_wanted in wanted.items() if is_wanted and scores[key] >= at_least]
    return sorted(found, key=lambda key: (-scores[key], hashlib.md5(f"{salt}:{key}".encode()).hexdigest()[8:24]))


def decided(tiny: TinyProject, day: str = DAY) -> dict[str, dict[str, Any]]:
    """The rows of the decisions, by key."""
    return {row["id"]: row for row in tiny.read(day, "decisions").to_pylist()}


def keys(found: Mapping[str, Mapping[str, Any]], reason: str) -> list[str]:
    """The keys with a reason, by rank."""
    return sorted((key for key in found if found[key]["reason"] == reason), key=lambda key: found[key]["rank"] or 0)


def printed(code: str, **names: object) -> str:
    """What an example prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, "the guide's example", "exec"), dict(names))
    return output.getvalue()


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.stop()


# high-risk rows, and a team that is told


def land_cards(tiny: TinyProject, day: str, shift: int) -> dict[str, bool]:
    """Land the cards of a day; whether each of them may be reviewed."""
    count = 600
    blocked = [number % 11 == 0 for number in range(count)]
    amount = [None if number % 29 == 7 else float(number * 31 % 250) for number in range(count)]
    names = [f"card-{number:03d}" for number in range(count)]
    country = [("DE", "FR", "PL")[number % 3] for number in range(count)]
    tiny.land(day, rows(tiny, count, shift, id=names, country=country, amount=amount, blocked=blocked))
    return {
        name: not stopped and value is not None and value >= 100
        for name, stopped, value in zip(names, blocked, amount, strict=True)
    }


def test_the_fraud_team_is_told_which_rows_to_review(
    tiny: TinyProject, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attributes = "    country: str\n    amount: float = pa.Field(nullable=True)\n    blocked: bool\n"
    with_case(tiny, FRAUD, attributes)
    monkeypatch.setenv("FRAUD_ALERT_URLS", web.url)
    monkeypatch.setenv("DAGSTER_UI_URL", "https://dagster.example.org")
    before, day = days_ago(2), days_ago(1)
    with dg.DagsterInstance.ephemeral() as instance:
        wanted = {}
        for number, of in enumerate((before, day)):
            wanted[of] = land_cards(tiny, of, -1500 * number)
            assert tiny.run(of, instance=instance).success
            collector.tick(instance, [tiny.pipeline], LOG)
            collector.tick(instance, [tiny.pipeline], LOG)

    first = ranked(tiny, before, wanted[before], tiny.name, 0.9)[:25]
    fresh = [key for key in ranked(tiny, day, wanted[day], tiny.name, 0.9) if key not in first]
    assert keys(decided(tiny, before), "review:taken") == first
    assert keys(decided(tiny, day), "review:taken") == fresh[:25]
    assert set(keys(decided(tiny, day), "review:over_cap")) == set(fresh[25:]) != set()
    assert keys(decided(tiny, day), "review:recent")

    (message,) = blocks(FRAUD, "text")
    assert len(web.received) == 2
    assert "\n".join(web.received[1]) == message.replace("cards", tiny.name).replace("2026-11-29", day).strip()
    assert f"first by rank: {', '.join(fresh[:3])}" in message

    page = (Path(tiny.pipeline.output.uri) / day_page(day)).read_text("utf-8")
    assert page.count("<td>review</td>") == 1 + 25 and "card-" not in page
    (code,) = blocks(FRAUD, "python")
    text = printed(code.replace('"cards"', "pipeline").replace("2026-11-29", day), pipeline=tiny.pipeline)
    assert re.findall(r"card-\d+", text) == fresh[:25] and all("x" in line for line in text.splitlines()[1:])


# a weekly list of customers at risk

CUSTOMERS = 30_000
FORMULA = 15_887
"""The customer who signed up with a formula as a name."""


def land_customers(tiny: TinyProject, day: str, shift: int = 0) -> dict[str, bool]:
    """Land the customers of a day; whether each of them has consented."""
    consent = [None if number % 19 == 0 else number % 17 > 0 for number in range(CUSTOMERS)]
    name = [("Ada Abel", "Bo Birk", "Cy Cole")[number % 3] for number in range(CUSTOMERS)]
    name[FORMULA] = "=1+1"
    region = [("north", "south", "east")[number // 3 % 3] for number in range(CUSTOMERS)]
    landed = rows(tiny, CUSTOMERS, shift, name=name, region=region, consent=consent)
    tiny.land(day, landed)
    return {key: bool(given) for key, given in zip(landed["id"].to_pylist(), consent, strict=True)}


def expected_arms(tiny: TinyProject, wanted: Mapping[str, bool]) -> tuple[list[str], list[str]]:
    """The 10,000 of the list, and those who are held out on the way to the last of them."""
    treated: list[str] = []
    control: list[str] = []
    for key in ranked(tiny, DAY, wanted, "retain-2024", 0.5):
        if len(treated) == 10_000:
            break
        is_control = int(hashlib.md5(f"retain-2024:{key}".encode()).hexdigest()[:8], 16) < 0.1 * 2**32
        (control if is_control else treated).append(key)
    return treated, control


def opened(tiny: TinyProject) -> list[dict[str, str]]:
    """The list of Monday, as the manifest names it."""
    valid = manifest(tiny, name="at_risk")
    assert valid
    with (Path(tiny.pipeline.data_root) / "exports" / valid.file).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_marketing_gets_its_list_on_mondays_and_the_lift_can_be_told(tiny: TinyProject) -> None:
    with_case(tiny, MARKETING, "    name: str\n    region: str\n    consent: bool = pa.Field(nullable=True)\n")
    wanted = land_customers(tiny, DAY)
    tiny.land(NEXT_DAY, rows(tiny, 50, name=["x"] * 50, region=["east"] * 50, consent=[True] * 50))
    with dg.DagsterInstance.ephemeral() as instance:
        assert all(tiny.run(day).success for day in (DAY, NEXT_DAY))
        exports = [f"arms {DAY} succeeded", f"at_risk {DAY} succeeded"]
        assert sorted(tick_and_run(tiny, instance)) == exports
        treated, control = expected_arms(tiny, wanted)
        listed = opened(tiny)
        lift_is_told(tiny, treated, control)

        tiny.land(DAY, rows(tiny, 50, name=["x"] * 50, region=["east"] * 50, consent=[True] * 50))
        assert tiny.run().success
        assert sorted(tick_and_run(tiny, instance)) == exports

    assert len(decided(tiny)) == 50 and opened(tiny) == listed, "a corrected Monday leaves the list"
    arms = exported(tiny, name="arms").to_pylist()
    expected = dict.fromkeys(treated, "treated") | dict.fromkeys(control, "control")
    assert {row["id"]: row["arm"] for row in arms} == expected
    assert manifest(tiny, NEXT_DAY, "at_risk") is None
    assert [row["id"] for row in listed] == treated and len(treated) == 10_000
    assert {row["name"] for row in listed} == {"Ada Abel", "Bo Birk", "Cy Cole", "'=1+1"}
    shown = list(csv.DictReader(blocks(MARKETING, "csv")[0].splitlines()))
    assert rounded(listed[: len(shown)]) == rounded(shown)


def rounded(lines: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Lines of the list; the last digits of a score depend on the processor."""
    return [{**line, "score": f"{float(line['score']):.5f}"} for line in lines]


def lift_is_told(tiny: TinyProject, treated: list[str], control: list[str]) -> None:
    """Both ways of the guide tell who has left: 10 of 100 of those on the list, 20 of 100 of the control group."""
    leaving = {*treated[::10], *control[::5]}
    outcomes = pandas.DataFrame({"id": tiny.read()["id"].to_pylist()})
    outcomes["has_left"] = outcomes["id"].isin(leaving)
    (code,), (query,) = (blocks(MARKETING, language) for language in ("python", "sql"))
    text = printed(code.replace('"churn"', "pipeline"), pipeline=tiny.pipeline, outcomes=outcomes)
    shares = [sum(key in leaving for key in arm) / len(arm) for arm in (control, treated)]
    margin = 1.96 * sum(p * (1 - p) / len(arm) for p, arm in zip(shares, (control, treated), strict=True)) ** 0.5
    lift = shares[0] - shares[1]
    assert text.startswith(f"{lift:.1%} more stayed, between {lift - margin:.1%} and {lift + margin:.1%} ")

    database = sqlite3.connect(":memory:")
    table = tiny.read(table="decisions").select(["id", "arm", "reason", "dt"]).to_pandas()
    table.assign(dt=table["dt"].astype(str)).to_sql("decisions", database)
    outcomes.to_sql("outcomes", database)
    assert database.execute(query).fetchall() == [
        ("control", len(control), pytest.approx(shares[0])),
        ("treated", len(treated), pytest.approx(shares[1])),
    ]
    database.close()


# business rules after the model


def write_rules(tiny: TinyProject, source: str) -> None:
    """Replace the function, as a deployment would."""
    (tiny.folder / "rules.py").write_text(source)
    sys.modules.pop(f"batch_scoring.pipelines.{tiny.name}.rules", None)


def expected_reasons(tiny: TinyProject, landed: pa.Table) -> dict[str, str]:
    """The reason of each customer, by the words of the guide."""
    scores = dict(zip(*tiny.read().select(["id", "prob_class_1"]).to_pydict().values(), strict=True))
    found, spent, households = {}, 0.0, defaultdict[int, int](int)
    customers = [(scores[row["id"]] * (row["revenue"] or 0.0), row) for row in landed.to_pylist()]
    for loss, row in sorted(customers, key=lambda one: -one[0]):
        if loss < 50:
            reason = "small loss"
        elif households[row["household"]]:
            reason = "another in the household"
        else:
            spent += row["revenue"] / 10
            reason = "discount" if spent <= 20_000 else "over the budget"
        households[row["household"]] += 1
        found[row["id"]] = reason
    return found


def test_a_function_gives_discounts_within_its_budget_and_a_broken_promise_publishes_nothing(tiny: TinyProject) -> None:
    with_case(tiny, BUSINESS, "    household: int\n    revenue: float = pa.Field(nullable=True)\n")
    (source,) = blocks(BUSINESS, "python")
    write_rules(tiny, source)
    revenue = [None if number % 23 == 0 else 100.0 + number * 17 % 3001 for number in range(800)]
    landed = rows(tiny, 800, household=[number * 7 % 491 for number in range(800)], revenue=revenue)
    tiny.land(DAY, landed)
    assert all(checks(tiny.run()).values())

    found = decided(tiny)
    reasons = expected_reasons(tiny, landed)
    assert {key: row["reason"] for key, row in found.items()} == reasons
    assert keys(found, "discount") == [key for key, reason in reasons.items() if reason == "discount"]
    assert {key for key, row in found.items() if row["action"] == "discount"} == set(keys(found, "discount"))
    (shown,) = blocks(BUSINESS, "text")
    counts = {name: int(count) for name, count in re.findall(r"^(.*?) +(\d+)$", shown, re.MULTILINE)}
    assert counts == Counter(reasons.values())

    write_rules(tiny, source.replace('worth.drop_duplicates("household")', "worth"))
    result = tiny.run(raise_on_error=False)
    assert not result.success and checks(result)["decisions/caps_hold"] is False
    assert decided(tiny) == found
