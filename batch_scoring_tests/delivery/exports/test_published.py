"""Which days an export has, and what its settings are."""

import pytest

from batch_scoring.config.delivery_spec import FileExport
from batch_scoring.delivery.exports.published import is_day_of, settings_of


def export(**fields: object) -> FileExport:
    return FileExport.model_validate({"to": "file", "path": "a_{day}.csv", **fields})


@pytest.mark.parametrize(
    ("days", "expected"), [([], True), (["mon"], True), (["mon", "sun"], True), (["tue", "sun"], False)]
)
def test_a_day_is_exported_by_its_own_day_of_the_week(days: list[str], *, expected: bool) -> None:
    assert is_day_of(export(days=days), "2024-03-04") == expected  # a Monday


def test_every_setting_of_an_export_changes_its_digest() -> None:
    changed = {"where": "x > 1", "order": "-x", "most": 5, "columns": ["x"], "people": True, "path": "b_{day}.csv"}
    digests = {settings_of(export(**{name: value})) for name, value in changed.items()}
    assert len(digests | {settings_of(export())}) == len(changed) + 1
    assert settings_of(export()) == settings_of(export())
