import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_scoring.config.loader import load_pipelines
from batch_scoring.errors import SpecError
from batch_scoring_tests.tiny import TinyProject, normalised

Change = Callable[[dict[str, Any]], Any]


def errors_in(tiny: TinyProject, change: Change | None = None) -> list[str]:
    """Return the validation errors of the tiny pipeline's spec after a change, without the file name at their start."""
    if change is not None:
        change(tiny.spec)
    tiny.write_spec()
    with pytest.raises(SpecError) as caught:
        load_pipelines(tiny.packages, tiny.data_root)
    return [normalised(at_its_line(tiny.folder / "pipeline.yaml", fault)) for fault in caught.value.errors]


def at_its_line(spec: Path, fault: str) -> str:
    """Strip file and line from a validation error, after checking that the line contains the field or its section."""
    assert "\n" not in fault
    found = re.fullmatch(rf"{re.escape(str(spec))}(?: line (\d+))?: ((\S+?): .*)", fault)
    assert found, fault
    line, text, field = found.groups()
    parts = field.split(".")
    if line is None:
        assert len(parts) == 1 and "missing" in text, "no part of the field is in the file"
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
