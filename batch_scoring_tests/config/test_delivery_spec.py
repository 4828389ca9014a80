"""The sections `decisions` and `exports`: wrong fields are named at their place, in an export of any kind."""

from typing import Any

import pytest

from batch_scoring_tests.specs import errors_in, put
from batch_scoring_tests.tiny import TinyProject

FILE = {"to": "file", "path": "{day}.csv"}
TABLE = {"to": "postgres", "url_from": "RESULTS", "table": "scores"}
REDIS = {"to": "redis", "url_from": "CACHE", "prefix": "rec", "key": "id", "value": "c"}
ALL_OF_EXPORTS = "to, of, where, order, most, columns, days, recent_days, corrections, default_status"


@pytest.mark.parametrize(
    ("export", "fault"),
    [
        ({"path": "{day}.csv"}, "exports.r.to: missing; expected one of file, postgres, redis"),
        (FILE | {"to": "kafka"}, "exports.r.to: 'kafka'; expected one of file, postgres, redis"),
        ("file", "exports.r: 'file'; expected a section with to: one of file, postgres, redis"),
        ({"to": "postgres", "url_from": "A"}, "exports.r.table: missing; expected the table, with its schema if"),
        (TABLE | {"table": "A table"}, "exports.r.table: 'A table': string should match pattern"),
        (TABLE | {"prefix": "a"}, "exports.r.prefix: unknown field; accepted here: of, where, order, most, columns, "),
        (TABLE | {"url_from": "${DB}"}, "exports.r.url_from: '${DB}': the environment variable DB is not set"),
        (FILE | {"path": "a.csv"}, "exports.r.path: 'a.csv': string should match pattern"),
        (FILE | {"path": "../{day}.csv"}, "exports.r.path: '../{day}.csv': leaves the data root; expected"),
        (FILE | {"days": ["monday"]}, "exports.r.days.0: 'monday': input should be 'mon', 'tue', "),
        (FILE | {"path": "s3://{day}.csv"}, "exports.r: path: 's3://{day}.csv': the bucket depends on the"),
        (FILE | {"people": True, "path": "{day}.parquet"}, "exports.r: people open CSV files in a spreadsheet; exp"),
        (REDIS | {"ttl_hours": 0}, "exports.r.ttl_hours: 0: input should be greater than or equal to 1; expected "),
        (REDIS | {"columns": ["id"]}, "exports.r: columns do not apply: key and value are what is stored"),
    ],
)
def test_a_wrong_field_of_an_export_is_named_without_its_kind(
    tiny: TinyProject,
    export: Any,  # noqa: ANN401  (any YAML value)
    fault: str,
) -> None:
    [found] = errors_in(tiny, put("exports", "r", value=export))
    assert found.startswith(fault)


def test_a_password_in_an_export_is_not_repeated(tiny: TinyProject) -> None:
    [found] = errors_in(tiny, put("exports", "r", value=TABLE | {"url_from": "postgresql://me:hunter2@db/x"}))
    assert found.startswith("exports.r.url_from: it holds a password")
    assert "hunter2" not in found


@pytest.mark.parametrize(
    ("decisions", "fault"),
    [
        ({}, "decisions.actions: missing; expected the actions by name, in order: a row gets the first that takes it"),
        ({"actions": {}}, "decisions.actions: dictionary should have at least 1 item after validation, not 0; exp"),
        ({"actions": {"Call": {}}}, "decisions.actions.Call: 'Call': not a name; expected lower-case letters, digits"),
        ({"actions": {"call": {}}, "eligible": {"18+": "x > 1"}}, "decisions.eligible.18+: '18+': not a name; expect"),
        ({"actions": {"none": {}}}, "decisions: an action is called none, which means that a row gets no action"),
        ({"actions": {"ineligible": {}}}, "decisions: an action is called ineligible, as the reasons of rows begin"),
        ({"actions": {"call": {"mots": 3}}}, "decisions.actions.call.mots: unknown field; did you mean most?"),
        ({"actions": {"call": {"most": -1}}}, "decisions.actions.call.most: -1: input should be greater than or eq"),
        ({"actions": {"call": None}}, "decisions.actions.call: None: input should be a section; expected a section"),
        (
            {"actions": {"call": 0.5}},
            "decisions.actions.call: 0.5: input should be a section; expected a section with at",
        ),
        (
            {"actions": {"call": {"holdout": 0.05}}},
            "decisions.actions.call.holdout: 0.05: input should be a section; expected a section with share, salt",
        ),
        (
            {"actions": {"call": {}}, "eligible": ["x > 1"]},
            "decisions.eligible: ['x > 1']: input should be a mapping; expected rules that a row must satisfy",
        ),
        (
            {"actions": {"call": {"most_per": {"c": "x"}}}},
            "decisions.actions.call.most_per.c: 'x': input should be a valid integer, unable to parse",
        ),
        (
            {"actions": {"call": {"holdout": {"share": 0.1}}}},
            "decisions.actions.call.holdout.salt: missing; expected text that is hashed with the key",
        ),
        (
            {"actions": {"call": {}}, "function": "decide", "reasons": ["good"]},
            "decisions.function: 'decide': string should match pattern '^([A-Za-z_]\\w*:[A-Za-z_]\\w*)?$'; expected f",
        ),
        (
            {"actions": {"call": {}}, "function": "rules:decide"},
            "decisions: function and reasons go together; expected all reasons that the function may give",
        ),
        (
            {"actions": {"call": {"at_least": 0.5}}, "function": "rules:decide", "reasons": ["good"]},
            "decisions: call: with a function, actions have only most and most_per, which are checked",
        ),
        (
            {"actions": {"call": {}}, "eligible": {"a": "x > 1"}, "function": "rules:decide", "reasons": ["good"]},
            "decisions: eligible: with a function, actions have only most and most_per",
        ),
    ],
)
def test_a_wrong_field_of_decisions_is_one_fault(tiny: TinyProject, decisions: dict[str, Any], fault: str) -> None:
    [found] = errors_in(tiny, put("decisions", value=decisions))
    assert found.startswith(fault)


def test_decisions_and_exports_of_every_kind_load(tiny: TinyProject) -> None:
    holdout = {"share": 0.05, "salt": "calls-2026"}
    tiny.spec["decisions"] = {"actions": {"call": {"holdout": holdout, "not_within_days": 30}, "email": {}}}
    people = FILE | {"path": "s3://marketing/{day}.csv.gz", "people": True}
    tiny.spec["exports"] = {"file": people, "table": TABLE, "cache": REDIS}
    tiny.write_spec()
    spec = tiny.pipeline.spec
    assert spec.decisions and list(spec.decisions.actions) == ["call", "email"]
    assert {name: export.to for name, export in spec.exports.items()} == {
        "cache": "redis",
        "file": "file",
        "table": "postgres",
    }
