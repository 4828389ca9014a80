"""Evidently's pages beside the tables: those of days that alarm, and of the newest days.

    reports/dt=…/drift.html          the day, its features and scores
    reports/dt=…/trailing.html       the features of the 28 days that end with it
    reports/dt=…/predictions.html    the scores of those days

Evidently takes seconds to import and to draw, so it is imported here alone, and a page is drawn only where it is
likely to be read. It tests with our thresholds, so its result is the check's. Columns that it cannot handle (an empty
one loses the whole page) are left out and named.
"""

import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.inference.reference_profile import ColumnProfile, Kind
from batch_scoring.ingest import landing_files
from batch_scoring.monitoring import html as markup
from batch_scoring.monitoring.drift.comparison import Compared, Side, known_drift
from batch_scoring.monitoring.drift.distances import Tested
from batch_scoring.runtime.printable import one_line
from batch_scoring.storage.state import DayDrift, State

DAY_PAGE = "drift.html"
TRAILING_PAGES: Mapping[Side, str] = {"features": "trailing.html", "predictions": "predictions.html"}

METHODS: Mapping[Kind, str] = {"numeric": "wasserstein", "categorical": "jensenshannon"}

SCRIPTS = 4
"""Scripts of Evidently's page: the data, a name, the library, the call that draws."""

_DATA = re.compile(r"^(    var (?:additional_graphs_)?metric_[0-9a-f]{32} = )([^\n]*)(;)$", re.MULTILINE)
"""A JSON document of the page. It has no line break, so what it quotes cannot look like the beginning of another."""
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_CHARSET = '<meta charset="UTF-8">'
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class Drawn:
    """A page that was drawn."""

    path: str
    """In the pipeline's output."""
    left_out: tuple[str, ...]
    """Columns without a value on one side, which are not on the page."""


@dataclass(frozen=True)
class EvidentlyPage:
    """Evidently's comparison of two samples."""

    html: bytes
    distances: dict[str, float]
    """Of each column that it tested."""
    left_out: tuple[str, ...]
    """Columns without a value on one side."""


def page_path(day: str, name: str) -> str:
    """The path of a day's page, below the pipeline's output."""
    return f"reports/dt={day}/{name}"


def draw(pipeline: Pipeline, compared: Compared) -> dict[str, Drawn]:
    """Draw the pages of an alarm or of the newest days, by name; remove those of older days that did not alarm."""
    newest = _newest(pipeline)
    is_new, profile = compared.day in newest, compared.reference.profile
    drawn = {}
    if "features" in compared.trailing_tests and (compared.day_drifted or (is_new and compared.sample.rows.num_rows)):
        rows = compared.reference.rows(date.fromisoformat(compared.day))
        columns = {**profile.columns, **profile.scores}
        tests = compared.day_tests
        if compared.day_drifted and not any(test.drifted for test in tests):
            tests = []  # Evidently does not test the shares that alarm here: it must not report that all is well
        drawn[DAY_PAGE] = _draw(pipeline, compared, DAY_PAGE, rows, compared.sample.rows, columns, tests)
    for side, tests in compared.trailing_tests.items():
        if tests and (compared.begins(side) or is_new):
            name, current = TRAILING_PAGES[side], compared.trailing_rows[side]
            columns = profile.columns if side == "features" else profile.scores
            drawn[name] = _draw(pipeline, compared, name, compared.reference.rows(), current, columns, tests)
    _remove_old(pipeline, {*newest})
    return drawn


def _draw(
    pipeline: Pipeline,
    compared: Compared,
    name: str,
    reference: pa.Table,
    current: pa.Table,
    columns: Mapping[str, ColumnProfile],
    tests: Sequence[Tested],
) -> Drawn:
    """Draw one page and write it."""
    kinds = {column: described.kind for column, described in columns.items() if column in current.column_names}
    path = page_path(compared.day, name)
    page = evidently_page(reference, current, kinds, tests)
    pipeline.output.put(path, page.html)
    return Drawn(path, page.left_out)


def _newest(pipeline: Pipeline) -> list[str]:
    """The newest days that have landed, as many as the spec keeps pages of."""
    count = pipeline.spec.drift.reports
    return sorted(filter(_DAY.fullmatch, landing_files.list_days(pipeline.landing)))[-count:] if count else []


def _remove_old(pipeline: Pipeline, kept: set[str]) -> None:
    """Remove the pages of days that are not the newest, unless their day alarms."""
    state, output = State(pipeline.output), pipeline.output
    ours = (DAY_PAGE, *TRAILING_PAGES.values())
    for file in output.list("reports/dt="):
        day, _, name = file.path.removeprefix("reports/dt=").partition("/")
        if day not in kept and name in ours and not _alarms(known_drift(state, day), name):
            output.remove(file.path)


def _alarms(drift: DayDrift | None, name: str) -> bool:
    """Whether a day's page is about an alarm."""
    if drift is None:
        return False
    if name == DAY_PAGE:
        return any(column.drifted for column in drift.features if column.horizon != "trailing")
    return any(drift.since.get(side) == drift.day for side, page in TRAILING_PAGES.items() if page == name)


def evidently_page(
    reference: pa.Table, current: pa.Table, kinds: Mapping[str, Kind], tested: Sequence[Tested]
) -> EvidentlyPage:
    """Compare two samples with Evidently.

    Args:
        reference: rows to compare with.
        current: rows of the day, or of the trailing days.
        kinds: the columns to summarise.
        tested: those of them to test, with their thresholds.
    """
    shown = {name: kind for name, kind in kinds.items() if _has_values(reference, name) and _has_values(current, name)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = _run(reference, current, shown, [test for test in tested if test.column in shown])
        return EvidentlyPage(_html(run), _distances(run), tuple(name for name in kinds if name not in shown))


def _run(reference: pa.Table, current: pa.Table, shown: Mapping[str, Kind], tests: Sequence[Tested]) -> Any:  # noqa: ANN401  (Evidently's snapshot)
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset, DataSummaryPreset

    definition = DataDefinition(
        numerical_columns=[name for name, kind in shown.items() if kind == "numeric"],
        categorical_columns=[name for name, kind in shown.items() if kind == "categorical"],
    )
    one, other = (Dataset.from_pandas(_frame(rows, shown), data_definition=definition) for rows in (current, reference))
    metrics: list[Any] = [DataSummaryPreset(columns=list(shown))]
    if tests:  # a column without a threshold of its own would silently get Evidently's default
        drift = DataDriftPreset(
            columns=[test.column for test in tests],
            per_column_method={test.column: METHODS[test.kind] for test in tests},
            per_column_threshold={test.column: test.threshold for test in tests},
            drift_share=0.5 / len(tests),  # one drifted column is an alarm
        )
        metrics.insert(0, drift)
    return Report(metrics).run(one, other)


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
    """Categories as text. plotly reads what begins with < as markup, links too: here it begins with another sign."""
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
        RuntimeError: the page is not built as expected, so nothing can be said of its safety.
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
