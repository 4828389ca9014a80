import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.config.loader import load_pipelines
from batch_scoring.config.validation.spec_file import line_of, lines
from batch_scoring.errors import SpecError
from batch_scoring_tests.specs import errors_in, put
from batch_scoring_tests.tiny import TinyProject


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            b"name: [tiny\n",
            "line 2: is not valid YAML: while parsing a flow sequence begun on line 1: expected ',' or ']'",
        ),
        (
            b"name: tiny\npartitions: {start: x\ninput: {key: id}\n",
            "line 3: is not valid YAML: while parsing a flow mapping begun on line 2: expected ',' or '}'",
        ),
        (b"name: tiny\ninput: {key: id}\n key: x\n", "line 3: is not valid YAML: while parsing a block mapping"),
        (b"name: tiny\npartitions: {start: 2024-13-45}\n", "month must be in 1..12"),
        (b"- name\n", "is list; expected a mapping with name, description, partitions, …"),
        (b"", "is empty; expected a mapping"),
        (
            b"decisions: {eligible: {a: region in ['x', 'y']}}\n",
            "line 1: is not valid YAML: while parsing a flow mapping expected ',' or '}', but got '['; "
            "within {…} and […], put a text that has one of { } [ ] , in double quotes",
        ),
        (b"exports: {a: {path: a_{day}.csv}}\n", "but got '{'; within {…} and […], put a text"),
        (b"input:\n\tkey: id\n", "line 2: is not valid YAML: while scanning"),
        (b"input:\n\tkey: id\n", "; indent with blanks, not with tabs"),
        (b"name: caf\xe9\n", "can't decode byte 0xe9"),
    ],
)
def test_a_file_that_is_no_spec_is_a_fault(tiny: TinyProject, text: bytes, fault: str) -> None:
    (tiny.folder / "pipeline.yaml").write_bytes(text)
    with pytest.raises(SpecError, match=r"pipeline\.yaml( line \d)?: ") as caught:
        load_pipelines(tiny.packages, tiny.data_root)
    assert fault in caught.value.errors[0]


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
    [fault] = errors_in(tiny, put("input", "landing", value="${TINY_FOLDER}"))
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
        [fault] = errors_in(tiny, put("description", value=text))
        assert f"description: '{text}': {name} is a secret by its name" in fault and "hunter2" not in fault
    monkeypatch.delenv(name)
    [fault] = errors_in(tiny, put("description", value=f"${{{name}:-nothing}}"))
    assert "is a secret by its name" in fault, "on this machine it is not set, on another it is"


def test_a_value_with_a_password_is_never_a_setting(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("https://robot:hunter2@queue.example/1", "-----BEGIN RSA PRIVATE KEY-----\nhunter2"):
        monkeypatch.setenv("TINY_QUEUE", value)
        [fault] = errors_in(tiny, put("description", value="${TINY_QUEUE}"))
        assert "description: '${TINY_QUEUE}' holds a password" in fault and "hunter2" not in fault
        [fault] = errors_in(tiny, put("description", value=value))
        assert "description: it holds a password" in fault and "hunter2" not in fault
    monkeypatch.setenv("TINY_ROBOT", "hunter2")
    [fault] = errors_in(tiny, put("description", value="https://robot:${TINY_ROBOT}@queue.example"))
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
    assert caught.value.errors[0] == (
        f"{file} line {lines + second}: {name}: appears twice, in line {first} and line {lines + second}; YAML would "
        "drop the first: expected once, with all content"
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
    with pytest.raises(SpecError, match="is not a field name; a spec has name, description"):
        load_pipelines(tiny.packages, tiny.data_root)
