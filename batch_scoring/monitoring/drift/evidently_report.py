"""Evidently's page on a comparison with the reference, with our thresholds: its verdict is the check's.

Evidently takes seconds to import and to draw, so it is imported here alone, and a page is made only where somebody
will look at it. Columns that it cannot stand (empty ones lose the whole page) are left out and named.
"""

import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.inference.reference_profile import Kind
from batch_scoring.monitoring import markup
from batch_scoring.monitoring.drift.distances import Tested
from batch_scoring.runtime.printable import one_line

METHODS: Mapping[Kind, str] = {"numeric": "wasserstein", "categorical": "jensenshannon"}

SCRIPTS = 4
"""Of Evidently's page: the data, a name, the library, the call that draws."""

_DATA = re.compile(r"^(    var (?:additional_graphs_)?metric_[0-9a-f]{32} = )([^\n]*)(;)$", re.MULTILINE)
"""A JSON document of the page. It has no line break, so what it quotes cannot look like the beginning of another."""
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_CHARSET = '<meta charset="UTF-8">'


@dataclass(frozen=True)
class Page:
    """What Evidently has made of a comparison."""

    html: bytes
    distances: dict[str, float]
    """Of each column that it tested."""
    left_out: tuple[str, ...]
    """Columns without a value on one side."""


def draw(reference: pa.Table, current: pa.Table, kinds: Mapping[str, Kind], tested: Sequence[Tested]) -> Page:
    """Compare two samples.

    Args:
        reference: rows to compare with.
        current: rows of the day, or of the trailing days.
        kinds: the columns to summarise.
        tested: those of them to test, with their thresholds.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset, DataSummaryPreset

        shown = {
            name: kind for name, kind in kinds.items() if _has_values(reference, name) and _has_values(current, name)
        }
        in_test = [one for one in tested if one.column in shown]
        definition = DataDefinition(
            numerical_columns=[name for name, kind in shown.items() if kind == "numeric"],
            categorical_columns=[name for name, kind in shown.items() if kind == "categorical"],
        )
        one, other = (
            Dataset.from_pandas(_frame(rows, shown), data_definition=definition) for rows in (current, reference)
        )
        metrics: list[Any] = [DataSummaryPreset(columns=list(shown))]
        if in_test:  # a column without a threshold of its own would get Evidently's default in silence
            drift = DataDriftPreset(
                columns=[test.column for test in in_test],
                per_column_method={test.column: METHODS[test.kind] for test in in_test},
                per_column_threshold={test.column: test.threshold for test in in_test},
                drift_share=0.5 / len(in_test),  # one drifted column is an alarm
            )
            metrics.insert(0, drift)
        run = Report(metrics).run(one, other)
        return Page(_html(run), _distances(run), tuple(name for name in kinds if name not in shown))


def _has_values(rows: pa.Table, name: str) -> bool:
    column = rows[name]
    if pa.types.is_floating(column.type):
        return bool(pc.any(pc.is_finite(column)).as_py())
    return bool(column.null_count < len(column))


def _frame(rows: pa.Table, columns: Mapping[str, Kind]) -> Any:  # noqa: ANN401  (a pandas frame)
    return pa.table(
        {
            name: rows[name].cast(pa.float64(), safe=False) if kind == "numeric" else _words(rows[name])
            for name, kind in columns.items()
        }
    ).to_pandas()


def _words(column: pa.ChunkedArray) -> pa.Array:
    """Categories as text. plotly takes what begins with < for markup, links too: here it begins with another sign."""
    coded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    return pa.array([one_line(word).replace("<", "‹") for word in coded.dictionary.to_pylist()], pa.string()).take(
        coded.indices
    )


def _html(run: Any) -> bytes:  # noqa: ANN401  (Evidently's snapshot)
    with tempfile.TemporaryDirectory(prefix="batch_scoring_") as folder:
        page = Path(folder, "page.html")
        run.save_html(str(page))
        return _secured(page.read_text(encoding="utf-8")).encode()


def _secured(page: str) -> str:
    """Evidently's page with its data escaped, which Evidently does not do, and a policy that runs its scripts alone.

    Raises:
        RuntimeError: the page is not built as it is known here, so nothing can be said of its safety.
    """
    escaped, documents = _DATA.subn(lambda found: found[1] + markup.script_json(found[2]) + found[3], page)
    scripts = _SCRIPT.findall(escaped)
    if (documents, len(scripts)) != (2, SCRIPTS) or _CHARSET not in escaped:
        raise RuntimeError(
            f"Evidently's page has {documents} documents of data and {len(scripts)} scripts, expected 2 and {SCRIPTS}: "
            "it may run what a cell says and was not kept; has another release of evidently been installed?"
        )
    return escaped.replace(_CHARSET, f"{_CHARSET}\n        {markup.policy_element(scripts)}", 1)


def _distances(run: Any) -> dict[str, float]:  # noqa: ANN401  (Evidently's snapshot)
    return {
        metric["config"]["column"]: float(metric["value"])
        for metric in run.dict()["metrics"]
        if metric["config"].get("type", "").endswith("ValueDrift")
    }
