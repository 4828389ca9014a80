"""What the guide on decisions says about rules: every example is read, evaluated or refused as it says."""

import re
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
import yaml

from batch_scoring.config.loader import PROJECT
from batch_scoring.config.rules.expressions import Rule
from batch_scoring.errors import RuleError

GUIDE = (PROJECT / "docs/guides/decisions.md").read_text("utf-8")
RULES = GUIDE[GUIDE.index("\n## Rules\n") : GUIDE.index("\n## How a row gets its action\n")]
CUSTOMER = pa.record_batch(
    {
        "age": pa.array([40]),
        "region": pa.array(["north"]),
        "consent": pa.array([True]),
        "blocked": pa.array([False]),
        "phone": pa.array(["+49 30 1"]),
        "balance": pa.array([950.0]),
        "credit": pa.array([1000.0]),
        "amount in eur": pa.array([101]),
        "joined": pa.array([date(2026, 2, 1)]),
        "seen": pa.array([datetime(2026, 11, 28, 8, 29, tzinfo=UTC)], pa.timestamp("us", "UTC")),
    }
)
"""A row that satisfies every rule of the first table."""
ANSWERS = {"true": True, "false": False, "unknown": None}


def holds(text: str, row: pa.RecordBatch) -> bool | None:
    [answer] = Rule.parse(text, "decisions.eligible.r").bind(row.schema)(row).to_pylist()
    assert answer is None or isinstance(answer, bool)
    return answer


def test_every_accepted_form_is_accepted_and_holds() -> None:
    examples = re.findall(r"^\| [^|]* \| (.*) \|$", RULES.partition("### Missing values")[0], re.MULTILINE)[2:]
    assert len(examples) == 8
    for example in examples:
        text = example.removeprefix("`` ").removesuffix(" ``") if example.startswith("`` ") else example.strip("`")
        assert holds(text, CUSTOMER) is True, text


def test_missing_values_are_answered_as_the_table_says() -> None:
    rows = re.findall(r"^\| `(.*)` \| `(.*)` \| (true|false|unknown) \|$", RULES, re.MULTILINE)
    assert len(rows) == 10
    for text, cells, answer in rows:
        row = yaml.safe_load(f"{{{cells}}}")
        given = {name: pa.array([row.get(name)], CUSTOMER.schema.field(name).type) for name in CUSTOMER.schema.names}
        assert holds(text, pa.record_batch(given)) is ANSWERS[answer], (text, cells)


def test_the_yaml_holds() -> None:
    [block] = re.findall(r"^```yaml\n(.*?)^```$", RULES, re.DOTALL | re.MULTILINE)
    rules = yaml.safe_load(block)["eligible"]
    assert {name: holds(text, CUSTOMER) for name, text in rules.items()} == {"solvent": True, "reachable": True}


def test_the_messages_are_those_of_the_code() -> None:
    messages = "".join(re.findall(r"^```text\n(.*?)^```$", RULES, re.DOTALL | re.MULTILINE)).splitlines()
    assert len(messages) == 3
    for message in messages:
        place, shown = re.match(r"""([\w.]+): ('.*?'|".*?"), character""", message).groups()  # type: ignore[union-attr]
        with pytest.raises(RuleError) as caught:
            Rule.parse(shown[1:-1], place).bind(CUSTOMER.schema)
        assert str(caught.value) == message
