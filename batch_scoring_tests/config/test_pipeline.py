import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.config.pipeline import PROJECT, data_root, find_pipeline, load_pipelines, survey_pipelines
from batch_scoring.config.validation import line_of, lines
from batch_scoring.errors import SpecError, UnknownPipelineError
from batch_scoring_tests.tiny import NETWORK, SCHEMA, TinyProject, normalised

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def one_tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    return TinyProject(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny(one_tiny: TinyProject) -> Iterator[TinyProject]:
    """One project for all tests of this module, put back after each: no test looks at more than its files."""
    spec = copy.deepcopy(one_tiny.spec)
    yield one_tiny
    one_tiny.spec = spec
    one_tiny.write_spec()
    one_tiny.write_code(SCHEMA, NETWORK)


def faults(tiny: TinyProject, change: Change | None = None) -> list[str]:
    """What is said of the tiny pipeline's spec after a change, without the file that every fault begins with."""
    if change is not None:
        change(tiny.spec)
    tiny.write_spec()
    with pytest.raises(SpecError) as caught:
        load_pipelines(tiny.packages, tiny.data_root)
    return [normalised(at_its_line(tiny.folder / "pipeline.yaml", fault)) for fault in caught.value.faults]


def at_its_line(spec: Path, fault: str) -> str:
    """A fault without its file and line, in which its field must stand, or the section that lacks it."""
    assert "\n" not in fault
    found = re.fullmatch(rf"{re.escape(str(spec))}(?: line (\d+))?: ((\S+?): .*)", fault)
    assert found, fault
    line, text, field = found.groups()
    parts = field.split(".")
    if line is None:
        assert len(parts) == 1 and "missing" in text, "nothing of it is there"
    else:
        said = spec.read_text().splitlines()[int(line) - 1]
        key = "- " if parts[-1].isdigit() else f"{parts[-1]}:"
        section = f"{parts[-2]}:" if len(parts) > 1 else key
        assert re.sub("^- ", "", said.strip()).startswith((key, section)) or said.strip().startswith("- "), (
            fault,
            said,
        )
    return text


def put(*path: str, value: Any) -> Change:  # noqa: ANN401  (any YAML value)
    def change(spec: dict[str, Any]) -> None:
        for part in path[:-1]:
            spec = spec.setdefault(part, {})
        spec[path[-1]] = value

    return change


def drop(*path: str) -> Change:
    def change(spec: dict[str, Any]) -> None:
        for part in path[:-1]:
            spec = spec[part]
        del spec[path[-1]]

    return change


WRONG_FIELDS: dict[str, tuple[Change, str]] = {
    "unknown field": (
        put("schedule_at", value="06:00"),
        "schedule_at: unknown field; accepted here: name, description, owners, partitions, input, features, model, "
        "scoring, checks, drift, schedule, runs, uploads, events, alerts, retention, compute, preview_rows, output",
    ),
    "memory without a number": (
        put("compute", "default", "memory", value="lots"),
        "compute.default.memory: 'lots': no amount of memory; expected for example 512Mi or 8Gi",
    ),
    "a GPU for a step that does not score": (
        put("compute", "validated_features", "gpu", value=1),
        "compute.validated_features.gpu: unknown field; accepted here: cpu, memory, image, node_selector, tolerations, "
        "spot, shared_memory, pool, retries, start_minutes, max_hours",
    ),
    "shared memory beyond the memory": (
        put("compute", "predictions", value={"memory": "1Gi", "shared_memory": "1024Mi"}),
        "compute.predictions: shared_memory is a part of memory; expected less than 1Gi",
    ),
    "half a toleration": (
        put("compute", "default", "tolerations", value=[{"key": "spot", "operator": "Equal"}]),
        "compute.default.tolerations.0: value goes with operator: Equal, and only with it",
    ),
    "a deadline with a unit": (
        put("input", "deadline_hours", value="9h"),
        "input.deadline_hours: '9h': input should be a valid number, unable to parse string as a number; expected "
        "hours after the day's midnight, by the wall clock, by which its files must have landed; may exceed 24",
    ),
    "unknown field of a section": (
        put("features", "numerical", value=["x"]),
        "features.numerical: unknown field; accepted here: schema, numeric, categorical, day_grain",
    ),
    "unknown field of a section's section": (
        put("input", "csv", "sep", value=";"),
        "input.csv.sep: unknown field; accepted here: delimiter, null_values, newlines, quote, escape, trim",
    ),
    "missing field": (
        drop("input", "key"),
        "input.key: missing; expected the column that identifies a row; one row per key and day is scored",
    ),
    "missing section": (drop("model"), "model: missing; expected a section with bundle, network"),
    "section that is none": (
        put("partitions", value="daily"),
        "partitions: 'daily': input should be a valid dictionary or instance of Partitions; "
        "expected a section with start, timezone",
    ),
    "wrong type": (
        put("scoring", "rows_per_shard", value="many"),
        "scoring.rows_per_shard: 'many': input should be a valid integer, unable to parse string as an integer; "
        "expected input rows per shard of a file",
    ),
    "wrong type in a list": (
        put("features", "numeric", value=["x", 5]),
        "features.numeric.1: 5: input should be a valid string; "
        "expected columns of the model's numeric matrix, in its order",
    ),
    "field of two types": (
        put("scoring", "batch_rows", value=10),
        "scoring.batch_rows: 10: input should be 'auto' or input should be greater than or equal to 64; "
        "expected rows per forward pass, or auto: as many as keep activations in the cache",
    ),
    "choice": (
        put("scoring", "device", value="gpu"),
        "scoring.device: 'gpu': input should be 'auto', 'cpu' or 'cuda'; "
        "expected cpu, cuda, or auto: a GPU if there is one",
    ),
    "date": (
        put("partitions", "start", value="tomorrow"),
        "partitions.start: 'tomorrow': input should be a valid date or datetime, input is too short; "
        "expected first day, YYYY-MM-DD",
    ),
    "unknown time zone": (
        put("partitions", "timezone", value="Mars/Olympus"),
        "partitions.timezone: 'Mars/Olympus': not an IANA time zone; expected a name such as UTC or America/New_York",
    ),
    "folder of time zones": (
        put("partitions", "timezone", value="America"),
        "partitions.timezone: 'America': not an IANA time zone; expected a name such as UTC or America/New_York",
    ),
    "delimiter of two characters": (
        put("input", "csv", "delimiter", value="||"),
        "input.csv.delimiter: '||': string should have at most 1 character; expected one ASCII character between cells",
    ),
    "quote of two characters": (
        put("input", "csv", "quote", value="''"),
        "input.csv.quote: \"''\": string should match pattern '^(none|[!-~])$'; "
        "expected one ASCII character around cells, doubled within them; none: a quote is text like any other",
    ),
    "delimiter that quotes": (
        put("input", "csv", value={"delimiter": "'", "quote": "'"}),
        'input.csv: delimiter "\'" is the quote or the escape, too; expected another one',
    ),
    "delimiter that ends lines": (
        put("input", "csv", "delimiter", value="\n"),
        "input.csv: delimiter is a line break; expected a character that stands between cells",
    ),
    "escape that quotes": (
        put("input", "csv", "escape", value='"'),
        "input.csv: escape is the quote; quotes are read that stand twice within a cell: leave escape out",
    ),
    "line breaks without quotes": (
        put("input", "csv", value={"newlines": True, "quote": "none"}),
        "input.csv: newlines without quotes; expected quote or escape, else every line break ends a row",
    ),
    "reference without a class": (
        put("features", "schema", value="schema.py"),
        "features.schema: 'schema.py': string should match pattern '^[A-Za-z_]\\w*:[A-Za-z_]\\w*$'; "
        "expected the pandera model, module:class inside the pipeline's package",
    ),
    "missing module": (
        put("features", "schema", value="scheme:Rows"),
        "features.schema: 'scheme:Rows': there is no scheme.py beside the spec",
    ),
    "unknown class": (
        put("model", "network", value="network:Nett"),
        "model.network: 'network:Nett': network.py defines no class Nett; its classes: Net",
    ),
    "unknown key column": (
        put("input", "key", value="identity"),
        "input.key: 'identity' is no column of schema:Rows; it has id, x, y, n, c",
    ),
    "unknown numeric column": (
        put("features", "numeric", value=["x", "z"]),
        "features.numeric: 'z' is no column of schema:Rows; it has id, x, y, n, c",
    ),
    "unknown categorical column": (
        put("features", "categorical", value=["colour"]),
        "features.categorical: 'colour' is no column of schema:Rows; it has id, x, y, n, c",
    ),
    "feature twice": (
        put("features", "categorical", value=["c", "x"]),
        "features: x named more than once; expected every feature once",
    ),
    "no feature": (
        lambda spec: spec["features"].update(numeric=[], categorical=[]),
        "features: no features; expected at least one column under numeric or categorical",
    ),
    "key as a feature": (
        put("features", "categorical", value=["c", "id"]),
        "input.key: 'id' is also a feature; expected a column of its own",
    ),
    "missing bundle": (
        put("model", "bundle", value="models/v9"),
        "model.bundle: 'models/v9': there is no bundle.json in DATA/models/v9; expected a bundle folder",
    ),
    "bundle outside of the data root": (
        put("model", "bundle", value="../v1"),
        "model.bundle: '../v1': leaves the data root; expected a path below it, an absolute path or s3://bucket/prefix",
    ),
    "landing outside of the data root": (
        put("input", "landing", value="a/../../b"),
        "input.landing: 'a/../../b': leaves the data root; "
        "expected a path below it, an absolute path or s3://bucket/prefix",
    ),
    "output in an unknown kind of storage": (
        put("output", value="gs://bucket/scores"),
        "output: 'gs://bucket/scores': no such kind of storage; expected a path or s3://bucket/prefix",
    ),
    "owner": (
        put("owners", value=["team:risk", "Bob"]),
        "owners: ['team:risk', 'Bob']: 'Bob' is no owner; expected an e-mail address or team:name",
    ),
    "owner whom Dagster does not take": (
        put("owners", value=["müller@example.org"]),
        "owners: ['müller@example.org']: 'müller@example.org' is no owner; expected an e-mail address or team:name",
    ),
    "name that is not the folder's": (
        put("name", value="other"),
        "name: 'other'; expected the folder's name, 'tiny'",
    ),
    "name that is none": (
        put("name", value="My Pipeline"),
        "name: 'My Pipeline': string should match pattern '^[a-z][a-z0-9_]*$'; "
        "expected name of the folder; prefix of the assets and of the data folders",
    ),
    "cron in words": (
        put("schedule", "cron", value="daily at six"),
        "schedule.cron: 'daily at six': no cron that Dagster takes; "
        "expected five fields such as 0 6 * * * (daily at 06:00)",
    ),
    "cron by a name": (
        put("schedule", "cron", value="@daily"),
        "schedule.cron: '@daily': no cron that Dagster takes; expected five fields such as 0 6 * * * (daily at 06:00)",
    ),
    "cron with seconds": (
        put("schedule", "cron", value="0 0 6 * * *"),
        "schedule.cron: '0 0 6 * * *': no cron that Dagster takes; "
        "expected five fields such as 0 6 * * * (daily at 06:00)",
    ),
    "cron of an hour that no day has": (
        put("schedule", "cron", value="0 24 * * *"),
        "schedule.cron: '0 24 * * *': no cron that Dagster takes; "
        "expected five fields such as 0 6 * * * (daily at 06:00)",
    ),
    "cron of a day that no year has": (
        put("schedule", "cron", value="0 6 31 4 *"),
        "schedule.cron: '0 6 31 4 *': Dagster finds no day for it in any year; "
        "expected five fields such as 0 6 * * * (daily at 06:00)",
    ),
    "cron at random": (
        put("schedule", "cron", value="R 6 * * *"),
        "schedule.cron: 'R 6 * * *': R is another time in every process; "
        "expected five fields such as 0 6 * * * (daily at 06:00)",
    ),
    "cron that is a number": (
        put("schedule", "cron", value=6),
        "schedule.cron: 6: input should be a valid string; "
        "expected five fields: minute, hour, day of month, month, day of week",
    ),
    "time zone of the cron": (
        put("schedule", "timezone", value="CEST"),
        "schedule.timezone: 'CEST': not an IANA time zone; expected a name such as UTC or America/New_York",
    ),
    "days ahead": (
        put("schedule", "days_back", value=-1),
        "schedule.days_back: -1: input should be greater than or equal to 0; "
        "expected newest day that a tick requests: 1 yesterday, 0 today, in partitions.timezone",
    ),
    "status of a schedule, as YAML reads on": (
        put("schedule", "default_status", value=yaml.safe_load("on")),
        "schedule.default_status: True: input should be 'running' or 'stopped'; "
        "expected running or stopped, until somebody switches it",
    ),
    "a retention in which a run loses its shards": (
        put("retention", "superseded_days", value=3),
        "retention.superseded_days: 3: a run may still publish a finished shard that is days old, and a reader read "
        "what was replaced; expected at least 7 days",
    ),
    "a retention of no days": (
        put("retention", "quarantine_days", value=0),
        "retention.quarantine_days: 0: input should be greater than or equal to 1; expected days for which a day's "
        "quarantined rows are kept, raw customer data; none: for ever",
    ),
    "status of a sensor": (
        put("uploads", "default_status", value="RUNNING"),
        "uploads.default_status: 'RUNNING': input should be 'running' or 'stopped'; "
        "expected running or stopped, until somebody switches it",
    ),
    "queue by its name": (
        put("events", "queue", value="arn:aws:sqs:eu-central-1:1:uploads"),
        "events.queue: 'arn:aws:sqs:eu-central-1:1:uploads': string should match pattern '^(https?://.+)?$'; "
        "expected URL of an SQS queue that receives the bucket's events directly, through SNS or EventBridge",
    ),
    "unknown way to be complete": (
        put("input", "complete", "by", value="done"),
        "input.complete.by: 'done': input should be 'quiet', 'marker' or 'manifest'; expected quiet: no new file for a "
        "while; marker: a file says so; manifest: a JSON file lists the others",
    ),
    "marker that would be data": (
        put("input", "complete", "file", value="SUCCESS"),
        "input.complete.file: 'SUCCESS': string should match pattern '^([._][^/]*)?$'; expected name of the "
        "marker or manifest in the day's folder, begins with _ or .; _SUCCESS, _manifest.json",
    ),
    "threshold that no metric meets": (
        put("checks", "metrics_meet_threshold", value={"least": {"auc": float("nan")}}),
        "checks.metrics_meet_threshold.least.auc: nan: input should be a finite number; expected a value",
    ),
    "threshold that every metric meets": (
        put("checks", "metrics_meet_threshold", value={"most": {"error": yaml.safe_load(".inf")}}),
        "checks.metrics_meet_threshold.most.error: inf: input should be a finite number; expected a value",
    ),
    "deviation that nothing exceeds": (
        put("checks", "confidence_is_usual", value={"deviation": float("inf")}),
        "checks.confidence_is_usual.deviation: inf: input should be a finite number; expected allowed "
        "deviation of the day's mean from that of the 28 days before; none: the bundle's profile",
    ),
    "unset variable": (
        put("model", "bundle", value="${NOBODY_SETS_THIS}/v1"),
        "model.bundle: '${NOBODY_SETS_THIS}/v1': the environment variable NOBODY_SETS_THIS is not set; "
        "set it or write ${NOBODY_SETS_THIS:-default}",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_FIELDS)
def test_a_wrong_field_is_one_fault_that_names_file_field_value_and_what_is_accepted(
    tiny: TinyProject, wrong: str
) -> None:
    change, expected = WRONG_FIELDS[wrong]
    assert faults(tiny, change) == [expected.replace("DATA", tiny.data_root)]


@pytest.mark.parametrize("cron", ["0 6 * * MON-FRI", "15 6 * mar,apr *", "0 6 29 2 *", "0 6 L * *", "*/10 * * * *"])
def test_a_cron_of_any_form_that_dagster_keeps_to_is_taken(tiny: TinyProject, cron: str) -> None:
    tiny.spec["schedule"] = {"cron": cron}
    tiny.write_spec()
    assert tiny.pipeline.spec.schedule.cron == cron


@pytest.mark.parametrize("name", ["dt", "prediction", "row_number", "prob_class_7"])
def test_a_column_name_that_the_tables_use_is_refused_wherever_it_stands(tiny: TinyProject, name: str) -> None:
    tiny.write_code(schema=f"class Rows:\n    {name}: int\n    id: str\n    x: float\n")
    tiny.spec["features"] |= {"numeric": ["x", name], "categorical": []}
    [fault] = faults(tiny)
    assert fault.startswith(f"features.numeric: {name!r} is a column of our tables; rename it, dt, stage, rule")
    tiny.spec["features"]["numeric"] = ["x"]
    [fault] = faults(tiny, put("input", "key", value=name))
    assert fault.startswith(f"input.key: {name!r} is a column of our tables")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"name: [tiny\n", "line 2: is no YAML: while parsing a flow sequence expected ',' or ']'"),
        (b"name: tiny\ninput: {key: id}\n key: x\n", "line 3: is no YAML: while parsing a block mapping"),
        (b"name: tiny\npartitions: {start: 2024-13-45}\n", "month must be in 1..12"),
        (b"- name\n", "is list; expected a mapping with name, description, partitions, …"),
        (b"", "is NoneType; expected a mapping"),
        (b"name: caf\xe9\n", "can't decode byte 0xe9"),
    ],
)
def test_a_file_that_is_no_spec_is_a_fault(tiny: TinyProject, text: bytes, fault: str) -> None:
    (tiny.folder / "pipeline.yaml").write_bytes(text)
    with pytest.raises(SpecError, match=r"pipeline\.yaml( line \d)?: ") as caught:
        load_pipelines(tiny.packages, tiny.data_root)
    assert fault in caught.value.faults[0]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (b"class Rows(:\n", "schema.py line 1 is no Python: invalid syntax"),
        (b"class Rows: ...\nreturn\n", "schema.py line 2 is no Python: 'return' outside function"),
        (
            b"import os\nfrom nowhere import Base\nclass Rows: ...\n",
            "schema.py line 2 imports nowhere, which is not in",
        ),
        (
            b"from .rules import A\nclass Rows: ...\n",
            "schema.py line 1 imports batch_scoring.pipelines.tiny.rules, whi",
        ),
        (b"# caf\xe9\nclass Rows: ...\n", "schema.py is no Python: 'utf-8' codec can't decode"),
        (b"x = 1\n", "schema.py defines no class Rows; its classes: none"),
    ],
)
def test_code_that_does_not_define_the_class_is_a_fault(tiny: TinyProject, source: bytes, fault: str) -> None:
    (tiny.folder / "schema.py").write_bytes(source)
    [found] = faults(tiny)
    assert found.startswith(f"features.schema: 'schema:Rows': {fault}")


def test_what_the_packages_own_modules_hold_counts_too(tiny: TinyProject) -> None:
    helper, package = tiny.folder / "rules.py", tiny.folder / "__init__.py"
    try:
        tiny.write_code(schema=f"from .rules import A\n{SCHEMA}")
        helper.write_text("A = 1\nimport nowhere.at_all\n")
        expected = "features.schema: 'schema:Rows': rules.py line 2 imports nowhere.at_all, which is not installed"
        assert faults(tiny) == [expected]
        helper.write_text("A = 1\n")
        assert tiny.pipeline.name == tiny.name
        package.write_text("A = (\n")
        assert [fault.split(": ")[2] for fault in faults(tiny)] == ["__init__.py line 1 is no Python"] * 2
    finally:
        helper.unlink(missing_ok=True)
        package.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("try:\n    import nowhere\nexcept ImportError:\n    nowhere = None\n", id="it may be missing"),
        pytest.param("import sys\nsys.path.append('/opt')\nimport nowhere\n", id="nobody knows where it looks"),
        pytest.param("import os.path\nimport xml.dom.minidom as dom\n", id="it is there"),
    ],
)
def test_a_module_that_may_be_imported_is_no_fault(tiny: TinyProject, source: str) -> None:
    tiny.write_code(schema=source + SCHEMA)
    assert tiny.pipeline.name == tiny.name


def test_libraries_of_another_image_are_not_missed(tiny: TinyProject) -> None:
    tiny.write_code(network=f"import nowhere\n{NETWORK}")
    expected = ["model.network: 'network:Net': network.py line 1 imports nowhere, which is not installed"]
    assert faults(tiny) == expected
    tiny.spec["compute"] = {"predictions": {"image": "registry/with-nowhere:1"}}
    tiny.write_spec()
    assert tiny.pipeline.name == tiny.name


def test_a_missing_schema_is_a_fault(tiny: TinyProject) -> None:
    (tiny.folder / "schema.py").unlink()
    assert faults(tiny) == ["features.schema: 'schema:Rows': there is no schema.py beside the spec"]


def test_a_column_is_known_by_its_alias(tiny: TinyProject) -> None:
    tiny.write_code(
        schema="""
import pandera.pandas as pa
class Base(pa.DataFrameModel):
    key: str = pa.Field(alias="id")
class Rows(Base):
    x: float
    y: float = pa.Field(alias="Y value")
    n: int
    c: str
"""
    )
    assert faults(tiny) == ["features.numeric: 'y' is no column of schema:Rows; it has x, Y value, n, c, id"]
    tiny.spec["features"]["numeric"] = ["x", "Y value", "n"]
    tiny.write_spec()
    assert tiny.pipeline.spec.features.numeric == ("x", "Y value", "n")


def test_columns_of_a_schema_that_inherits_from_elsewhere_are_left_to_the_run(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    tiny.write_code(schema="from shared import Base\nclass Rows(Base):\n    x: float\n")
    assert tiny.pipeline.spec.input.key == "id"


def test_a_variable_is_replaced_by_its_value_and_else_by_its_default(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.spec["scoring"] = {"rows_per_shard": "${TINY_ROWS:-500}", "device": "${TINY_DEVICE:-cpu}"}
    tiny.spec["input"]["landing"] = "${TINY_PREFIX:-in}/${TINY_FOLDER:-landing}"
    tiny.write_spec()
    assert tiny.pipeline.spec.scoring.rows_per_shard == 500
    assert tiny.pipeline.landing.uri == f"{tiny.data_root}/in/landing"
    monkeypatch.setenv("TINY_ROWS", "70")
    monkeypatch.setenv("TINY_PREFIX", "s3://bucket")
    assert tiny.pipeline.spec.scoring.rows_per_shard == 70
    assert tiny.pipeline.landing.uri == "s3://bucket/landing"


def test_an_empty_variable_counts_as_unset(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_FOLDER", "")
    [fault] = faults(tiny, put("input", "landing", value="${TINY_FOLDER}"))
    assert "environment variable TINY_FOLDER is not set" in fault
    tiny.spec["input"]["landing"] = "${TINY_FOLDER:-elsewhere}"
    tiny.write_spec()
    assert tiny.pipeline.landing.uri == f"{tiny.data_root}/elsewhere"


@pytest.mark.parametrize(
    "name",
    [
        "ALERT_URLS",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SESSION_TOKEN",
        "DAGSTER_PG_PASSWORD",
        "DB_PWD",
        "STRIPE_KEY",
        "stripe_api_key",
        "SENTRY_DSN",
        "DATABASE_URL",
        "SLACK_WEBHOOK",
        "PASSWORD",
        "BATCH_SCORING_TOKEN",
    ],
)
def test_a_secret_is_never_a_setting(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "hunter2-hunter2")
    for text in (f"${{{name}}}", f"at ${{{name}:-nothing}}"):
        [fault] = faults(tiny, put("description", value=text))
        assert f"description: '{text}': {name} is a secret by its name" in fault and "hunter2" not in fault
    monkeypatch.delenv(name)
    [fault] = faults(tiny, put("description", value=f"${{{name}:-nothing}}"))
    assert "is a secret by its name" in fault, "on this machine it is not set, on another it is"


def test_a_value_with_a_password_is_never_a_setting(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("https://robot:hunter2@queue.example/1", "-----BEGIN RSA PRIVATE KEY-----\nhunter2"):
        monkeypatch.setenv("TINY_QUEUE", value)
        [fault] = faults(tiny, put("description", value="${TINY_QUEUE}"))
        assert "description: '${TINY_QUEUE}' holds a password" in fault and "hunter2" not in fault
        [fault] = faults(tiny, put("description", value=value))
        assert "description: it holds a password" in fault and "hunter2" not in fault
    monkeypatch.setenv("TINY_ROBOT", "hunter2")
    [fault] = faults(tiny, put("description", value="https://robot:${TINY_ROBOT}@queue.example"))
    assert "holds a password" in fault and "hunter2" not in fault


@pytest.mark.parametrize(
    "name",
    ["BATCH_SCORING_GPU_IMAGE", "CUSTOMER_CHURN_MODEL", "AWS_REGION", "PWD", "KEY_COLUMN", "ROW_KEY", "MONKEYS_URL"],
)
def test_what_deployments_set_is_a_setting(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "https://queue.example/a@b")
    tiny.spec["description"] = f"${{{name}}}"
    tiny.write_spec()
    assert tiny.pipeline.spec.description == "https://queue.example/a@b"


def test_every_fault_of_every_spec_is_listed_in_one_error(tmp_path: Path) -> None:
    projects = [TinyProject(tmp_path / name) for name in "abc"]
    together = tmp_path / "together"
    for project in projects:
        shutil.copytree(project.folder, together / project.name)
    good, first, second = projects
    first.spec["colour"] = "red"
    first.spec["partitions"]["timezone"] = "Mars/Olympus"
    first.spec["model"]["bundle"] = "${NOBODY_SETS_THIS}"
    first.spec["input"]["key"] = "dt"
    first.spec["features"]["schema"] = "missing:Rows"
    second.spec["scoring"]["batch_rows"] = 1
    second.spec["model"]["network"] = "network:Nett"
    for project in (first, second):
        (together / project.name / "pipeline.yaml").write_text(yaml.safe_dump(project.spec))
    survey = survey_pipelines(together, good.data_root)
    assert [pipeline.name for pipeline in survey.sound] == [good.name]
    shutil.rmtree(together / good.name)
    with pytest.raises(SpecError) as caught:
        load_pipelines(together, good.data_root)
    assert caught.value.faults == survey.faults
    found = [(fault.split(": ")[0].split("/")[-2], fault.split(": ")[1]) for fault in caught.value.faults]
    assert sorted(found) == sorted(
        [(first.name, field) for field in ("colour", "partitions.timezone", "model.bundle", "features.schema")]
        + [(first.name, "input.key")]
        + [(second.name, field) for field in ("scoring.batch_rows", "model.network", "model.bundle")]
    )
    message = str(caught.value)
    assert message.startswith("8 faults in the pipelines' specs:\n  ")
    assert all(fault in message for fault in caught.value.faults)


def test_a_folder_without_any_pipeline_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no pipeline\.yaml in any folder; expected at least one pipeline"):
        load_pipelines(tmp_path)


def test_an_unknown_pipeline_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownPipelineError, match="no pipeline 'flights'; there are: customer_churn, flight_delay"):
        find_pipeline("flights")


def test_the_data_root_is_the_environments_or_the_projects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert data_root() == str(PROJECT / "data")
    monkeypatch.setenv("BATCH_SCORING_DATA", "s3://bucket/prefix")
    assert data_root() == "s3://bucket/prefix"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCH_SCORING_DATA", "here")
    assert data_root() == str(tmp_path / "here")


def test_code_digests_follow_what_the_rows_depend_on_and_nothing_else(tiny: TinyProject) -> None:
    def digests() -> tuple[str, str]:
        return tiny.pipeline.features_code, tiny.pipeline.scoring_code

    features, scoring = digests()
    tiny.spec |= {"description": "other words", "owners": ["team:other"]}
    tiny.spec["scoring"] = {"batch_rows": 64, "device": "auto"}
    tiny.write_spec()
    assert digests() == (features, scoring)
    with (tiny.folder / "schema.py").open("a") as file:
        file.write("# another rule\n")
    assert digests() == (tiny.pipeline.features_code, scoring) != (features, scoring)
    features, _ = digests()
    with (tiny.folder / "network.py").open("a") as file:
        file.write("# another layer\n")
    assert digests() == (features, tiny.pipeline.scoring_code) != (features, scoring)
    _, scoring = digests()
    for change in (put("scoring", "rows_per_shard", value=7), put("input", "csv", "delimiter", value=";")):
        change(tiny.spec)
        tiny.write_spec()
        assert tiny.pipeline.features_code != features
        assert tiny.pipeline.scoring_code == scoring
        features = tiny.pipeline.features_code
    put("features", "numeric", value=["y", "x", "n"])(tiny.spec)
    tiny.write_spec()
    assert tiny.pipeline.features_code != features
    assert tiny.pipeline.scoring_code != scoring


def test_dagster_shows_every_fault_and_the_deployment_does_not_start_half(tmp_path: Path) -> None:
    code = tmp_path / "batch_scoring"
    shutil.copytree(PROJECT / "batch_scoring", code, ignore=shutil.ignore_patterns("__pycache__"))
    for name, wrong in (("flight_delay", "timezone: Mars"), ("customer_churn", "timezone: Venus")):
        spec = code / "pipelines" / name / "pipeline.yaml"
        content = yaml.safe_load(spec.read_text())
        content["partitions"] |= yaml.safe_load(wrong)
        spec.write_text(yaml.safe_dump(content))
    validated = subprocess.run(
        [Path(sys.executable).with_name("dagster"), "definitions", "validate", "-m", "batch_scoring.definitions"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "BATCH_SCORING_DATA": str(PROJECT / "data")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = validated.stdout + validated.stderr
    assert validated.returncode == 1
    assert "2 faults in the pipelines' specs" in said
    for name, zone in (("flight_delay", "Mars"), ("customer_churn", "Venus")):
        wrong = rf"batch_scoring/pipelines/{name}/pipeline\.yaml line \d+: partitions\.timezone: '{zone}': not an IANA"
        assert re.search(wrong, said)


def test_a_typo_in_a_field_that_a_section_needs_is_that_fault_alone(tiny: TinyProject) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["features"] = {"schema": "schema:Rows", "numerics": ["x"]}

    assert faults(tiny, change) == [
        "features.numerics: unknown field; accepted here: schema, numeric, categorical, day_grain"
    ]


TWICE = {
    "a section": ("checks:\n  quarantine_is_small: {rows: 5}\n", "checks", (1, 1)),
    "a field of a section": ("drift:\n  rows: 50\n  'rows': 60\n", "drift.rows", (2, 3)),
    "a field on one line": ("drift: {rows: 50, rows: 60}\n", "drift.rows", (1, 1)),
    "a field in a list": (
        "compute:\n  default:\n    tolerations:\n    - key: a\n      key: b\n",
        "compute.default.tolerations.0.key",
        (4, 5),
    ),
    "an empty section": ("drift:\ndrift:\n", "drift", (1, 2)),
}


@pytest.mark.parametrize("case", TWICE)
def test_a_key_that_stands_twice_is_a_fault_with_both_lines(tiny: TinyProject, case: str) -> None:
    addition, name, (first, second) = TWICE[case]
    tiny.write_spec()
    file = tiny.folder / "pipeline.yaml"
    before = file.read_text()
    file.write_text(before + addition)
    lines = before.count("\n")
    first = before[: before.index("checks:")].count("\n") + 1 if case == "a section" else lines + first
    with pytest.raises(SpecError) as caught:
        load_pipelines(tiny.packages, tiny.data_root)
    assert caught.value.faults[0] == (
        f"{file} line {lines + second}: {name}: stands twice, in line {first} and line {lines + second}; YAML would "
        "drop the first: expected once, with all of both"
    )


def test_merge_keys_and_anchors_stay_what_they_are(tiny: TinyProject) -> None:
    tiny.write_spec()
    file = tiny.folder / "pipeline.yaml"
    file.write_text(
        file.read_text()
        + "compute:\n  default: &small {cpu: 1, memory: 1Gi}\n  model: &larger {<<: *small, memory: 2Gi}\n"
        "  predictions:\n    <<: *larger\n    cpu: 2\n  validated_features: {<<: [*larger, *small]}\n"
    )
    [pipeline] = load_pipelines(tiny.packages, tiny.data_root)
    compute = pipeline.spec.compute
    assert (compute.predictions.cpu, compute.predictions.memory) == (2, "2Gi")
    assert (compute.validated_features.cpu, compute.validated_features.memory) == (1, "2Gi")


SECTIONS = st.recursive(
    st.integers() | st.text("abc\n#", max_size=60),
    lambda inner: st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), inner, min_size=1, max_size=4),
    max_leaves=15,
).filter(lambda value: isinstance(value, dict))


@given(content=SECTIONS, flow=st.sampled_from([None, False]), width=st.sampled_from([20, 80]))
def test_every_field_of_a_spec_has_its_line(content: dict[str, Any], flow: bool | None, width: int) -> None:
    text = yaml.safe_dump(content, default_flow_style=flow, width=width)
    known, written = lines(text), text.splitlines()

    def walk(section: dict[str, Any], path: str) -> Iterator[str]:
        for name, value in section.items():
            yield path + name
            yield from walk(value, f"{path}{name}.") if isinstance(value, dict) else ()

    assert sorted(known) == sorted(walk(content, ""))
    assert all(re.search(rf"\b{path.rpartition('.')[2]}\b", written[line - 1]) for path, line in known.items())
    assert all(line_of(f"{path}.nothing.like_it", known) == line for path, line in known.items())
    assert line_of("nothing", {}) is None


@pytest.mark.parametrize("key", ["on: 1", "1: x", "null: x"])
def test_a_key_that_is_no_name_is_a_fault(tiny: TinyProject, key: str) -> None:
    tiny.write_spec()
    file = tiny.folder / "pipeline.yaml"
    file.write_text(f"{file.read_text()}{key}\n")
    with pytest.raises(SpecError, match="is no field's name; a spec has name, description"):
        load_pipelines(tiny.packages, tiny.data_root)


def test_a_bucket_without_a_name_is_a_fault(tiny: TinyProject) -> None:
    assert faults(tiny, put("model", "bundle", value="s3:///v1")) == [
        "model.bundle: 's3:///v1': no such kind of storage; expected a path or s3://bucket/prefix"
    ]


@pytest.mark.parametrize("root", ["gs://bucket", "s3://", "s3:///prefix", "file:///tmp"])
def test_a_data_root_of_another_kind_is_refused(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_SCORING_DATA", root)
    with pytest.raises(SpecError, match=f"BATCH_SCORING_DATA: '{root}'; expected a folder or s3://bucket/prefix"):
        data_root()


@pytest.mark.parametrize("shared", ["{name}", "{name}/tables", "."])
def test_two_pipelines_never_share_an_output(tiny: TinyProject, tmp_path: Path, shared: str) -> None:
    tiny.write_spec()
    packages = tmp_path / "pipelines"
    shutil.copytree(tiny.folder, packages / tiny.name)
    shutil.copytree(tiny.folder, packages / "zweite")
    spec = {**tiny.spec, "name": "zweite", "output": shared.format(name=tiny.name)}
    (packages / "zweite/pipeline.yaml").write_text(yaml.safe_dump(spec))
    survey = survey_pipelines(packages, tiny.data_root)
    assert [pipeline.name for pipeline in survey.sound] == [tiny.name], "it writes into the folder of its own name"
    [fault] = survey.faults
    assert re.search(r"zweite/pipeline\.yaml line \d+: output: .* expected a folder of its own", fault)
    (packages / tiny.name / "pipeline.yaml").write_text("name: [")
    broken = {one.name: one.faults for one in survey_pipelines(packages, tiny.data_root).broken}
    assert broken["zweite"] == (fault,), "whatever becomes of the other, its tables are not to be had"
    for name in (tiny.name, "zweite"):
        both = {**tiny.spec, "name": name, "output": "elsewhere"}
        (packages / name / "pipeline.yaml").write_text(yaml.safe_dump(both))
    with pytest.raises(SpecError, match="2 faults"):  # nobody knows whose they are
        load_pipelines(packages, tiny.data_root)
    (packages / tiny.name / "pipeline.yaml").write_text(yaml.safe_dump(tiny.spec))
    (packages / "zweite/pipeline.yaml").write_text(yaml.safe_dump({**spec, "output": f"{tiny.name}_2"}))
    assert len(load_pipelines(packages, tiny.data_root)) == 2


def test_a_spec_of_another_name_is_a_fault(tiny: TinyProject) -> None:
    tiny.write_spec()
    other = tiny.folder / "pipeline.yml"
    other.write_text("name: x")
    try:
        with pytest.raises(SpecError, match=r"pipeline\.yml: no spec has this name; call it pipeline\.yaml"):
            load_pipelines(tiny.packages, tiny.data_root)
    finally:
        other.unlink()
