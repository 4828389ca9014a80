from typing import Any

import pytest
import yaml

from batch_scoring_tests.specs import Change, drop, errors_in, put
from batch_scoring_tests.tiny import TinyProject

WRONG_FIELDS: dict[str, tuple[Change, str]] = {
    "unknown field": (
        put("at", value="06:00"),
        "at: unknown field; accepted here: name, description, owners, partitions, input, features, model, "
        "scoring, decisions, exports, page, checks, drift, schedule, runs, uploads, events, alerts, retention, "
        "prices, compute, preview_rows, output",
    ),
    "memory without a number": (
        put("compute", "default", "memory", value="lots"),
        "compute.default.memory: 'lots': not an amount of memory; expected for example 512Mi or 8Gi",
    ),
    "a GPU for a step that does not score": (
        put("compute", "validated_features", "gpu", value=1),
        "compute.validated_features.gpu: unknown field; accepted here: cpu, memory, image, node_selector, tolerations, "
        "spot, shared_memory, pool, retries, start_minutes, max_hours",
    ),
    "shared memory beyond the memory": (
        put("compute", "predictions", value={"memory": "1Gi", "shared_memory": "1024Mi"}),
        "compute.predictions: shared_memory is part of memory; expected less than 1Gi",
    ),
    "prices that are all 0": (
        put("prices", value={"currency": "EUR", "cpu_hour": 0}),
        "prices: all prices are 0; expected cpu_hour, gb_hour or gpu_hour, or no section prices",
    ),
    "a currency by its sign": (
        put("prices", value={"currency": "$", "cpu_hour": 0.04}),
        "prices.currency: '$': string should match pattern '^[A-Z]{3}$'; expected currency of the prices, such as USD",
    ),
    "a negative price": (
        put("prices", value={"gpu_hour": -1}),
        "prices.gpu_hour: -1: input should be greater than or equal to 0; expected price of a GPU for an hour",
    ),
    "half a toleration": (
        put("compute", "default", "tolerations", value=[{"key": "spot", "operator": "Equal"}]),
        "compute.default.tolerations.0: value goes with operator: Equal, and only with it",
    ),
    "a deadline with a unit": (
        put("input", "deadline_hours", value="9h"),
        "input.deadline_hours: '9h': input should be a valid number, unable to parse string as a number; expected "
        "deadline of the day's files: hours after its midnight, in wall-clock time; may exceed 24",
    ),
    "unknown field of a section": (
        put("features", "numerical", value=["x"]),
        "features.numerical: unknown field; did you mean numeric?",
    ),
    "unknown field of a section's section": (
        put("input", "csv", "sep", value=";"),
        "input.csv.sep: unknown field; accepted here: delimiter, null_values, newlines, quote, escape, trim",
    ),
    "missing field": (
        drop("input", "key"),
        "input.key: missing; expected column that identifies a row; one row per key and day is scored",
    ),
    "missing section": (drop("model"), "model: missing; expected a section with bundle, network"),
    "section that is none": (
        put("partitions", value="daily"),
        "partitions: 'daily': input should be a section; expected a section with start, timezone",
    ),
    "wrong type": (
        put("scoring", "rows_per_shard", value="many"),
        "scoring.rows_per_shard: 'many': input should be a valid integer, unable to parse string as an integer; "
        "expected input rows per shard",
    ),
    "wrong type in a list": (
        put("features", "numeric", value=["x", 5]),
        "features.numeric.1: 5: input should be a valid string; "
        "expected columns of the model's numeric matrix, in order",
    ),
    "field of two types": (
        put("scoring", "batch_rows", value=10),
        "scoring.batch_rows: 10: input should be 'auto' or input should be greater than or equal to 64; "
        "expected rows per forward pass, or auto: as many as keep activations in the cache",
    ),
    "choice": (
        put("scoring", "device", value="gpu"),
        "scoring.device: 'gpu': input should be 'auto', 'cpu' or 'cuda'; "
        "expected cpu, cuda, or auto: a GPU where there is one",
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
        "expected one ASCII character around cells, doubled within them; none: a quote is ordinary text",
    ),
    "delimiter that quotes": (
        put("input", "csv", value={"delimiter": "'", "quote": "'"}),
        'input.csv: delimiter "\'" is also the quote or the escape; expected another one',
    ),
    "delimiter that ends lines": (
        put("input", "csv", "delimiter", value="\n"),
        "input.csv: delimiter is a line break; expected a character between cells",
    ),
    "escape that quotes": (
        put("input", "csv", "escape", value='"'),
        "input.csv: escape is the quote; doubled quotes within a cell are read anyway: leave escape out",
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
        "input.key: 'identity' is not a column of schema:Rows; it has id, x, y, n, c",
    ),
    "unknown numeric column": (
        put("features", "numeric", value=["x", "z"]),
        "features.numeric: 'z' is not a column of schema:Rows; it has id, x, y, n, c",
    ),
    "unknown categorical column": (
        put("features", "categorical", value=["colour"]),
        "features.categorical: 'colour' is not a column of schema:Rows; it has id, x, y, n, c",
    ),
    "feature twice": (
        put("features", "categorical", value=["c", "x"]),
        "features: x named more than once; expected every feature once",
    ),
    "no feature": (
        lambda spec: spec["features"].update(numeric=[], categorical=[]),
        "features: no features; expected at least one column under numeric, categorical, text or vectors",
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
        "output: 'gs://bucket/scores': unsupported storage; expected a path or s3://bucket/prefix",
    ),
    "owner": (
        put("owners", value=["team:risk", "Bob"]),
        "owners: ['team:risk', 'Bob']: 'Bob' is not an owner; expected an e-mail address or team:name",
    ),
    "owner whom Dagster does not take": (
        put("owners", value=["müller@example.org"]),
        "owners: ['müller@example.org']: 'müller@example.org' is not an owner; expected an e-mail address or team:name",
    ),
    "name that is not the folder's": (
        put("name", value="other"),
        "name: 'other'; expected the folder's name, 'tiny'",
    ),
    "name that is none": (
        put("name", value="My Pipeline"),
        "name: 'My Pipeline': string should match pattern '^[a-z][a-z0-9_]*$'; "
        "expected the folder's name; prefix of asset keys and data folders",
    ),
    "cron in words": (
        put("schedule", "cron", value="daily at six"),
        "schedule.cron: 'daily at six': Dagster does not accept this cron; "
        "expected five fields such as 0 6 * * * (daily at 06:00)",
    ),
    "cron by a name": (
        put("schedule", "cron", value="@daily"),
        "schedule.cron: '@daily': Dagster does not accept this cron; "
        "expected five fields such as 0 6 * * * (daily at 06:00)",
    ),
    "cron with seconds": (
        put("schedule", "cron", value="0 0 6 * * *"),
        "schedule.cron: '0 0 6 * * *': Dagster does not accept this cron; "
        "expected five fields such as 0 6 * * * (daily at 06:00)",
    ),
    "cron of an hour that no day has": (
        put("schedule", "cron", value="0 24 * * *"),
        "schedule.cron: '0 24 * * *': Dagster does not accept this cron; "
        "expected five fields such as 0 6 * * * (daily at 06:00)",
    ),
    "cron of a day that no year has": (
        put("schedule", "cron", value="0 6 31 4 *"),
        "schedule.cron: '0 6 31 4 *': no year has such a day; expected five fields such as 0 6 * * * (daily at 06:00)",
    ),
    "cron at random": (
        put("schedule", "cron", value="R 6 * * *"),
        "schedule.cron: 'R 6 * * *': R means a different time in every process; "
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
        "expected newest day that a tick scores: 1 yesterday, 0 today, in partitions.timezone",
    ),
    "status of a schedule, as YAML reads on": (
        put("schedule", "default_status", value=yaml.safe_load("on")),
        "schedule.default_status: True: input should be 'running' or 'stopped'; "
        "expected running or stopped, until it is switched in the UI",
    ),
    "a retention in which a run loses its shards": (
        put("retention", "superseded_days", value=3),
        "retention.superseded_days: 3: a run may still publish a shard that is days old, and a reader "
        "may still read replaced files; expected at least 7 days",
    ),
    "a retention of no days": (
        put("retention", "quarantine_days", value=0),
        "retention.quarantine_days: 0: input should be greater than or equal to 1; expected days for which "
        "quarantined rows, raw customer data, are kept; none: for ever",
    ),
    "status of a sensor": (
        put("uploads", "default_status", value="RUNNING"),
        "uploads.default_status: 'RUNNING': input should be 'running' or 'stopped'; "
        "expected running or stopped, until it is switched in the UI",
    ),
    "queue by its name": (
        put("events", "queue", value="arn:aws:sqs:eu-central-1:1:uploads"),
        "events.queue: 'arn:aws:sqs:eu-central-1:1:uploads': string should match pattern '^(https?://.+)?$'; "
        "expected URL of an SQS queue that receives the bucket's events, directly or through SNS or EventBridge",
    ),
    "unknown way to be complete": (
        put("input", "complete", "by", value="done"),
        "input.complete.by: 'done': input should be 'quiet', 'marker' or 'manifest'; expected quiet: no new file for a "
        "while; marker: a file says so; manifest: a JSON file lists the files",
    ),
    "marker that would be data": (
        put("input", "complete", "file", value="SUCCESS"),
        "input.complete.file: 'SUCCESS': string should match pattern '^([._][^/]*)?$'; expected file name "
        "of the marker or manifest, with a leading _ or .; _SUCCESS or _manifest.json",
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
        "checks.confidence_is_usual.deviation: inf: input should be a finite number; expected largest deviation of the "
        "day's mean from the previous 28 days; none: from the bundle's profile",
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
    assert errors_in(tiny, change) == [expected.replace("DATA", tiny.data_root)]


@pytest.mark.parametrize("cron", ["0 6 * * MON-FRI", "15 6 * mar,apr *", "0 6 29 2 *", "0 6 L * *", "*/10 * * * *"])
def test_a_cron_of_any_form_that_dagster_keeps_to_is_taken(tiny: TinyProject, cron: str) -> None:
    tiny.spec["schedule"] = {"cron": cron}
    tiny.write_spec()
    assert tiny.pipeline.spec.schedule.cron == cron


def test_a_bucket_without_a_name_is_a_fault(tiny: TinyProject) -> None:
    assert errors_in(tiny, put("model", "bundle", value="s3:///v1")) == [
        "model.bundle: 's3:///v1': unsupported storage; expected a path or s3://bucket/prefix"
    ]


def test_a_typo_in_a_field_that_a_section_needs_is_that_fault_alone(tiny: TinyProject) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["features"] = {"schema": "schema:Rows", "numerics": ["x"]}

    assert errors_in(tiny, change) == ["features.numerics: unknown field; did you mean numeric?"]


def test_a_typo_in_a_section_that_is_needed_is_that_fault_alone(tiny: TinyProject) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["partition"] = spec.pop("partitions")
        spec["input"]["keys"] = spec["input"].pop("key")
        del spec["model"]

    assert sorted(errors_in(tiny, change)) == [
        "input.keys: unknown field; did you mean key?",
        "model: missing; expected a section with bundle, network",
        "partition: unknown field; did you mean partitions?",
    ]
