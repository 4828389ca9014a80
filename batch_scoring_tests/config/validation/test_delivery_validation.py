"""What decisions and exports refer to: one error each, with its field, its line, and what to do."""

from typing import Any

import pytest

from batch_scoring.inference.heads.head import Head
from batch_scoring_tests.engineered import engineer
from batch_scoring_tests.heads import HEADS
from batch_scoring_tests.specs import Change, errors_in, put
from batch_scoring_tests.tiny import SCHEMA, TinyProject

EXPORT = {"to": "file", "path": "exports/{day}.csv"}
REDIS = {"to": "redis", "url_from": "CACHE", "prefix": "rec", "key": "id", "value": "c"}
TABLE = {"to": "postgres", "url_from": "RESULTS", "table": "scores.tiny"}


@pytest.fixture
def deciding(tiny: TinyProject) -> TinyProject:
    """A pipeline with an attribute, decisions and an export, all of which are right."""
    tiny.write_code(schema=SCHEMA + "    region: str\n    consent: bool\n    phone: str\n")
    tiny.folder.joinpath("rules.py").write_text("def decide(rows, day): ...\nclass Decider: ...\n")
    tiny.spec["input"]["attributes"] = ["region", "consent"]
    tiny.spec["decisions"] = {
        "eligible": {"adult": "x >= 18 and n > 0", "consent": "consent"},
        "actions": {
            "call": {"at_least": 0.5, "where": "prob_class_7 < 0.9", "most": 10, "most_per": {"region": 5}},
            "email": {},
        },
    }
    tiny.spec["exports"] = {"calls": EXPORT | {"of": "decisions", "where": "action == 'call'", "order": "rank"}}
    tiny.write_spec()
    assert tiny.pipeline.spec.decisions
    return tiny


def change_export(name: str = "calls", **fields: Any) -> Change:  # noqa: ANN401  (any YAML value)
    return lambda spec: spec["exports"].setdefault(name, dict(EXPORT)).update(fields)


def by_function(spec: dict[str, Any], function: str) -> list[str]:
    """Let a function decide. Return its attributes."""
    spec["decisions"] = {"actions": {"call": {"most_per": {"region": 5}}}, "function": function, "reasons": ["good"]}
    return []


ACCEPTED = "expected column names (in `backticks` if they are not plain words), numbers, text in quotes, True, False"
WRONG: dict[str, tuple[Change, str]] = {
    "a rule that is none": (
        put("decisions", "eligible", "adult", value="x >="),
        f"decisions.eligible.adult: 'x >=': invalid syntax; {ACCEPTED}",
    ),
    "a misspelt column in a rule": (
        put("decisions", "eligible", "adult", value="n > 0 and consnt"),
        "decisions.eligible.adult: 'n > 0 and consnt', character 11: no column consnt; did you mean consent?",
    ),
    "a column of the schema that nobody kept": (
        put("decisions", "actions", "email", value={"where": "phone is not None"}),
        "decisions.actions.email.where: 'phone is not None', character 1: no column phone; it is a column of the "
        "schema: name it under input.attributes",
    ),
    "a column of the table of decisions in a rule": (
        put("decisions", "eligible", "adult", value="rank < 3"),
        "decisions.eligible.adult: 'rank < 3', character 1: no column rank; expected one of id, x, y, n, c, region, "
        "consent, prob_class_0, prob_class_1, prediction, prediction_proba, model_version, scored_at, source_file, "
        "row_number",
    ),
    "a cap per unknown column": (
        put("decisions", "actions", "call", "most_per", value={"regions": 5}),
        "decisions.actions.call.most_per: 'regions': no such column; did you mean region?",
    ),
    "a score that is a feature": (
        put("decisions", "score", value="x"),
        "decisions.score: 'x': no such column; expected one of prob_class_0, prob_class_1, prediction, "
        "prediction_proba",
    ),
    "a function in no module": (
        lambda spec: by_function(spec, "ruls:decide"),
        "decisions.function: 'ruls:decide': there is no ruls.py beside the spec",
    ),
    "no function": (
        lambda spec: by_function(spec, "rules:decides"),
        "decisions.function: 'rules:decides': rules.py defines no function decides; its functions: decide",
    ),
    "a class that decides": (
        lambda spec: by_function(spec, "rules:Decider"),
        "decisions.function: 'rules:Decider': rules.py defines no function Decider; its functions: decide",
    ),
    "a cap of the function's on an unknown column": (
        lambda spec: spec["input"].update(attributes=by_function(spec, "rules:decide")),
        "decisions.actions.call.most_per: 'region': no such column; it is a column of the schema: name it under "
        "input.attributes",
    ),
    "an export of no decisions": (
        lambda spec: spec.pop("decisions"),
        "exports.calls.of: 'decisions': the spec has no section decisions; expected predictions",
    ),
    "an export of predictions by the action": (
        change_export(of="predictions", where="action == 'call'", order="prediction"),
        "exports.calls.where: \"action == 'call'\", character 1: no column action; it is a column of decisions: "
        "write of: decisions",
    ),
    "an unknown order": (
        change_export(order="-rnk"),
        "exports.calls.order: 'rnk': no such column; did you mean rank?",
    ),
    "an order as in SQL": (
        change_export(order="rank desc"),
        "exports.calls.order: 'rank desc': no such column; did you mean rank?",
    ),
    "a table whose name PostgreSQL would cut off": (
        put("exports", "others", value=TABLE | {"table": f"scores.{'t' * 64}"}),
        f"exports.others.table: 'scores.{'t' * 64}': string should match pattern",
    ),
    "an unknown column": (
        change_export(columns=["id", "rank", "phone"]),
        "exports.calls.columns: 'phone': no such column; it is a column of the schema: name it under input.attributes",
    ),
    "a column twice": (
        change_export(columns=["id", "rank", "id"]),
        "exports.calls.columns: 'id' is named more than once; expected every column once",
    ),
    "an unknown key": (
        put("exports", "recs", value=REDIS | {"key": "user"}),
        "exports.recs.key: 'user': no such column; expected one of id, x, y, n, c, region, consent, prob_class_0",
    ),
    "an unknown value": (
        put("exports", "recs", value=REDIS | {"value": "items"}),
        "exports.recs.value: 'items': no such column; expected one of id",
    ),
    "a column of the page that nobody kept": (
        put("page", value={"columns": ["region", "phone"]}),
        "page.columns: 'phone': no such column; it is a column of the schema: name it under input.attributes",
    ),
    "an alert about no action": (
        put("alerts", "actions", value={"cal": {"channels_from": "FRAUD_ALERT_URLS"}}),
        "alerts.actions.cal: no such action; did you mean call?",
    ),
    "an action that there is not": (
        change_export(where="action == 'cal'"),
        "exports.calls.where: \"action == 'cal'\", character 11: action is never 'cal'; did you mean call?",
    ),
    "an action that there is not, in a list and under not": (
        change_export(where="rank < 3 and not (action in ['call', 'fax'])"),
        "exports.calls.where: \"rank < 3 and not (action in ['call', 'fax'])\", character 38: action is never 'fax'; "
        "expected one of call, email, none",
    ),
    "a reason that there is not, on the left": (
        change_export(where="'call:takn' != reason"),
        "exports.calls.where: \"'call:takn' != reason\", character 1: reason is never 'call:takn'; "
        "did you mean call:taken?",
    ),
    "a reason of the rules where a function decides": (
        lambda spec: (
            by_function(spec, "rules:decide"),
            spec["exports"]["calls"].update(where="reason == 'call:taken'"),
        ),
        "exports.calls.where: \"reason == 'call:taken'\", character 11: reason is never 'call:taken'; expected one of "
        "good",
    ),
    "files among the input": (
        lambda spec: spec["exports"]["calls"].update(path=f"{spec['name']}/landing/calls/{{day}}.csv"),
        "exports.calls.path: 'tiny/landing/calls/{day}.csv': this is within the landing folder of tiny; expected a "
        "folder of its own",
    ),
    "files among the tables, by another spelling": (
        lambda spec: spec["exports"]["calls"].update(path=f"./{spec['name']}//tables/dt={{day}}/a.csv"),
        "exports.calls.path: './tiny//tables/dt={day}/a.csv': this is within the tables of tiny",
    ),
    "files in the state of an output elsewhere": (
        lambda spec: (
            spec.update(output="s3://b/out"),
            spec["exports"]["calls"].update(path="s3://b/out/state/{day}.csv"),
        ),
        "exports.calls.path: 's3://b/out/state/{day}.csv': this is within the state of tiny",
    ),
    "two exports with one manifest": (
        put("exports", "others", value=EXPORT | {"path": "./exports//{day}.csv.gz"}),
        "exports.others.path: './exports//{day}.csv.gz': exports.calls writes there too",
    ),
    "two exports to one file": (
        put("exports", "others", value=EXPORT),
        "exports.others.path: 'exports/{day}.csv': exports.calls writes there too; expected a place of its own, or "
        "other days",
    ),
    "two exports to one table": (
        lambda spec: spec["exports"].update(one=TABLE, two=TABLE),
        "exports.two.table: 'scores.tiny': exports.one writes there too",
    ),
    "two exports with one prefix": (
        lambda spec: spec["exports"].update(one=REDIS | {"days": ["mon", "tue"]}, two=REDIS | {"days": ["wed"]}),
        "exports.two.prefix: 'rec': exports.one writes there too; expected a place of its own",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_name_of_nothing_is_one_fault(deciding: TinyProject, wrong: str) -> None:
    change, expected = WRONG[wrong]
    [found] = errors_in(deciding, change)
    assert found.startswith(expected)


def test_rows_can_be_ordered_by_a_column_whose_name_is_no_word(deciding: TinyProject) -> None:
    deciding.write_code(schema=SCHEMA + "    amount: float = pa.Field(alias='amount in eur')\n")
    deciding.spec["input"]["attributes"] = ["amount in eur"]
    deciding.spec["decisions"] = {"actions": {"call": {}}}
    deciding.spec["exports"]["calls"]["order"] = "-amount in eur"
    deciding.write_spec()
    assert deciding.pipeline.spec.exports["calls"].order == "-amount in eur"


def test_a_path_in_full_is_the_one_below_the_data_root(deciding: TinyProject) -> None:
    path = f"{deciding.pipeline.data_root}/exports/{{day}}.parquet"
    [found] = errors_in(deciding, put("exports", "others", value=EXPORT | {"path": path}))
    assert found.startswith(f"exports.others.path: {path!r}: exports.calls writes there too")


def test_what_is_right_loads(deciding: TinyProject) -> None:
    deciding.spec["exports"] |= {
        "recs": REDIS | {"order": "-prob_class_12", "where": "model_version != 'v0' and score > 0", "of": "decisions"},
        "one": TABLE | {"days": ["mon"], "columns": ["scored_at", "id"]},
        "two": TABLE | {"days": ["tue"]},
        "elsewhere": TABLE | {"url_from": "OTHER"},
        "near": EXPORT | {"path": f"{deciding.name}/landing_{{day}}.csv"},
        "reasons": EXPORT
        | {
            "path": f"{deciding.name}/exports/{{day}}.csv",
            "of": "decisions",
            "where": "action in ['email', 'none'] or reason == 'call:over_cap_region' or c == 'cal'",
        },
    }
    deciding.write_spec()
    assert set(deciding.pipeline.spec.exports) == {*("calls", "recs", "one", "two", "elsewhere", "near", "reasons")}
    deciding.spec["exports"]["reasons"]["where"] = "reason == 'good' or action == 'call'"
    by_function(deciding.spec, "rules:decide")
    deciding.write_spec()
    assert deciding.pipeline.spec.decisions


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_the_columns_of_every_task_may_be_named(deciding: TinyProject, head: Head) -> None:
    for column in head.measured:
        deciding.spec["decisions"] = {"score": column, "actions": {"call": {"where": f"{column} > 0"}}}
        deciding.spec["exports"]["calls"] = EXPORT | {
            "columns": list(head.columns),
            "order": f"-{column}",
            "of": "predictions",
        }
        deciding.write_spec()
        assert deciding.pipeline.spec.decisions


@pytest.mark.parametrize("score", ["top_probs", "embedding", "prediction_prob", "quantile_", "prob_label", "norms"])
def test_what_is_no_score_cannot_rank(deciding: TinyProject, score: str) -> None:
    [found] = errors_in(deciding, put("decisions", "score", value=score))
    assert found.startswith(f"decisions.score: '{score}': no such column")


def test_every_fault_is_told_and_those_of_other_sections_too(deciding: TinyProject) -> None:
    deciding.spec["decisions"]["eligible"] = {"a": "nowhere", "b": "x >"}
    deciding.spec["exports"]["calls"]["order"] = "-nowhere"
    deciding.spec["schedule"] = {"cron": "daily"}
    found = [fault.split(": ")[0] for fault in errors_in(deciding)]
    assert found == ["schedule.cron", "decisions.eligible.a", "decisions.eligible.b", "exports.calls.order"]


def test_an_alert_needs_decisions(tiny: TinyProject) -> None:
    tiny.spec["alerts"] = {"actions": {"call": {"channels_from": "FRAUD_ALERT_URLS"}}}
    assert errors_in(tiny) == ["alerts.actions.call: no such action; the spec has no section decisions"]


def test_an_invalid_section_does_not_hide_what_the_others_refer_to(deciding: TinyProject) -> None:
    deciding.spec["decisions"]["eligible"] = {"a": "nowhere"}
    deciding.spec["exports"]["calls"]["colums"] = ["id"]
    found = [fault.split("; ")[0] for fault in errors_in(deciding)]
    assert found == [
        "exports.calls.colums: unknown field",
        "decisions.eligible.a: 'nowhere', character 1: no column nowhere",
    ]


def test_invalid_decisions_are_not_taken_for_none(deciding: TinyProject) -> None:
    deciding.spec["alerts"] = {"actions": {"call": {"channels_from": "FRAUD_ALERT_URLS"}}}
    found = errors_in(deciding, put("decisions", "score", value=5))
    assert [fault.split(": ")[0] for fault in found] == ["decisions.score"]


def test_without_a_valid_input_nothing_is_said_about_columns(deciding: TinyProject) -> None:
    deciding.spec["decisions"]["eligible"] = {"a": "nowhere"}
    assert [fault.split(": ")[0] for fault in errors_in(deciding, put("input", value={}))] == ["input.key"]


def test_columns_of_an_inherited_schema_are_hinted_at_only_if_they_are_known(deciding: TinyProject) -> None:
    deciding.write_code(schema="from json import JSONEncoder\nclass Rows(JSONEncoder):\n    x: float\n")
    [found] = errors_in(deciding, put("decisions", "eligible", value={"a": "phone is None"}))
    assert "no column phone; expected one of id, x, y, n, c, region, consent, prob_class_0, " in found


def test_with_a_transform_all_columns_of_the_schema_can_be_named_and_none_that_it_makes(tiny: TinyProject) -> None:
    engineer(tiny)
    tiny.spec["decisions"] = {"eligible": {"red": "c == 'red' and x > 0"}, "actions": {"call": {}}}
    tiny.write_spec()
    assert tiny.pipeline.spec.decisions
    [fault] = errors_in(tiny, put("decisions", "eligible", "red", value="ratio > 0"))
    assert "ratio" in fault and "features.transform makes it for the model, and no table has it" in fault
