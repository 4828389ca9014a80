"""The sink that a section of the spec describes."""

import subprocess
import sys

import pytest

from batch_scoring.config.loader import PROJECT
from batch_scoring.delivery.exports.sinks import sink_of
from batch_scoring.errors import SinkRefusedError
from batch_scoring_tests.exports import NAME, with_export
from batch_scoring_tests.tiny import TinyProject

POSTGRES = {"path": None, "to": "postgres", "url_from": "RESULTS_DB", "table": "scores.churn"}
REDIS = {"path": None, "to": "redis", "url_from": "REDIS_URL", "prefix": "rec", "key": "id", "value": "x"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [("lists/a_{day}.csv", "{root}/lists/a_{{day}}.csv"), ("s3://team/a_{day}.csv", "s3://team/a_{{day}}.csv")],
)
def test_a_relative_path_is_below_the_data_root(tiny: TinyProject, path: str, expected: str) -> None:
    address = sink_of(with_export(tiny, path=path).pipeline, NAME).address
    assert address == expected.format(root=tiny.pipeline.data_root)


@pytest.mark.parametrize("fields", [POSTGRES, REDIS], ids=lambda fields: fields["to"])
@pytest.mark.parametrize("value", [None, "", " "])
def test_the_variable_of_an_address_that_is_not_set_is_named(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], value: str | None
) -> None:
    monkeypatch.delenv(fields["url_from"], raising=False)
    if value is not None:
        monkeypatch.setenv(fields["url_from"], value)
    says = rf"exports\.list: the environment variable {fields['url_from']}.* not set"
    with pytest.raises(SinkRefusedError, match=says):
        sink_of(with_export(tiny, **fields).pipeline, NAME)


@pytest.mark.parametrize(
    ("fields", "url"),
    [(POSTGRES, "postgresql://secretary:hunter2@db/results"), (REDIS, "redis://secretary:hunter2@cache:6379/0")],
    ids=["postgres", "redis"],
)
def test_an_address_has_no_user_and_no_password(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], url: str
) -> None:
    monkeypatch.setenv(fields["url_from"], url)
    address = sink_of(with_export(tiny, **fields).pipeline, NAME).address
    assert "secretary" not in address and "hunter2" not in address
    assert ("db" if "db" in url else "cache") in address


@pytest.mark.parametrize("fields", [POSTGRES, REDIS], ids=lambda fields: fields["to"])
def test_the_variable_of_an_address_that_cannot_be_read_is_named_and_what_it_holds_is_not(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str]
) -> None:
    monkeypatch.setenv(fields["url_from"], "http://secretary:hunter2@db")
    with pytest.raises(SinkRefusedError, match=rf"exports\.list: {fields['url_from']}: .*; write it as") as refused:
        sink_of(with_export(tiny, **fields).pipeline, NAME)
    assert "hunter2" not in str(refused.value)


def test_finding_a_sink_imports_only_what_its_kind_needs() -> None:
    asked = (
        "import sys, batch_scoring.definitions, batch_scoring.delivery.exports.sinks; "
        "print(*[m for m in ('redis', 'adbc_driver_manager', 'adbc_driver_postgresql') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", asked], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
