"""A tiny pipeline with decisions, and what became of its rows."""

from typing import Any

import pyarrow as pa

from batch_scoring_tests.tiny import DAY, SCHEMA, TinyProject

RULES: dict[str, Any] = {
    "eligible": {"consent": "consent", "plausible": "x < 9"},
    "actions": {
        "call": {"at_least": 0.3, "most": 8, "holdout": {"share": 0.25, "salt": "calls"}},
        "email": {"most_per": {"region": 5}},
    },
}


def with_decisions(tiny: TinyProject, rules: dict[str, Any] | None = None) -> TinyProject:
    """Give a pipeline two attributes, and decisions."""
    tiny.write_code(schema=SCHEMA + "    region: str\n    consent: bool = pa.Field(nullable=True)\n")
    tiny.spec["input"]["attributes"] = ["region", "consent"]
    return by_rules(tiny, RULES if rules is None else rules)


def by_rules(tiny: TinyProject, rules: dict[str, Any]) -> TinyProject:
    """Replace a pipeline's decisions."""
    tiny.spec["decisions"] = rules
    tiny.write_spec()
    return tiny


def changed(action: str, **settings: object) -> dict[str, Any]:
    """The rules with other settings of an action."""
    actions = {**RULES["actions"], action: {**RULES["actions"][action], **settings}}
    return {**RULES, "actions": actions}


def customers(tiny: TinyProject, count: int, start: int = 0) -> pa.Table:
    """Rows of the pipeline, with its attributes."""
    numbers = range(start, start + count)
    rows = tiny.rows(count, start)
    rows = rows.append_column("region", pa.array(["north", "south", "east"][number % 3] for number in numbers))
    return rows.append_column("consent", pa.array([number % 7 > 0 for number in numbers]))


def reasons(tiny: TinyProject, day: str = DAY) -> dict[str, tuple[str, str]]:
    """Action and reason of every row, by key."""
    rows = tiny.read(day, "decisions").to_pylist()
    return {row["id"]: (row["action"], row["reason"]) for row in rows}


def keys(tiny: TinyProject, action: str, day: str = DAY) -> set[str]:
    """The keys that have an action."""
    return {key for key, (name, _) in reasons(tiny, day).items() if name == action}
