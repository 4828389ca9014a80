"""The asset raw_input: the day's landing files, found, verified readable and pinned.

No bytes are copied. The files and their versions go into `state/dt=…/input.json`; everything downstream reads that,
never a new listing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import history
from batch_scoring.defs.asset_checks import Finding, report, specs
from batch_scoring.defs.metadata import asset_key, asset_options, days, ui_table
from batch_scoring.errors import EntryError, FileChangedError, OutsideFolderError, UnreadableFileError
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.completeness import waits_for
from batch_scoring.operations import run_history
from batch_scoring.operations.failures import step_run
from batch_scoring.storage.state import DayInput, LandingFile, State

FILES_SHOWN = 50
LISTINGS = 3
"""Of a day whose files change while they are looked at."""

CHECKS = {
    "input_is_present": "The day has at least one landing file, and at least one row in them.",
    "input_is_complete": "Every file of the day can be read (a CSV file to its end, a Parquet file's footer), "
    "and the marker or manifest that the spec asks for is there.",
    "row_count_is_usual": "The day has about as many rows as the 28 days before it. Fails more than 25 % (`tolerance`) "
    "above or below all of them but the most extreme one.",
}


@dataclass(frozen=True)
class Found:
    """What the landing folder holds for a day."""

    files: tuple[LandingFile, ...]
    broken: dict[str, str]
    """Files that cannot be read, and why."""
    fingerprint: str
    where: str
    waits_for: str = ""
    """What the spec asks for before the day is complete, and is not there."""
    is_denied: bool = False
    """Whether something may not be read: the same files can be right the next time."""
    is_changing: bool = False
    """Whether a file was replaced or taken away between the listing and the look into it."""

    @property
    def rows(self) -> int:
        """Rows of all readable files."""
        return sum(file.rows for file in self.files)

    @property
    def findings(self) -> list[Finding]:
        """What the checks say."""
        present = bool(self.rows or self.broken)
        count = "1 file" if len(self.files) == 1 else f"{len(self.files) or 'no'} files"
        seen = f"{count} with {self.rows} rows in {self.where}" if self.files else f"{count} in {self.where}"
        troubles = [*self.broken.values(), *([self.waits_for] if self.waits_for else [])]
        complete = "; ".join(troubles) or "every file can be read"
        figures = {"files": len(self.files) + len(self.broken), "rows": self.rows}
        advice = "" if present else "; upload the day's files there, or correct input.landing in the spec"
        return [
            Finding(
                "input_is_present",
                present,
                seen + advice,
                figures,
                observed=len(self.files),
                expected="at least one file with rows",
            ),
            Finding(
                "input_is_complete",
                not troubles,
                complete,
                observed=len(self.broken),
                expected="no unreadable file",
                limits=[0],
                transient=self.is_denied or self.is_changing,
            ),
        ]


def find(pipeline: Pipeline, day: str) -> Found:
    """List and inspect the day's landing files; once more if one changes meanwhile."""
    for _ in range(LISTINGS):
        found = _find(pipeline, day)
        if not found.is_changing:
            break
    return found


def _find(pipeline: Pipeline, day: str) -> Found:
    files, broken = [], {}
    where = f"{pipeline.landing.uri}/{landing_files.day_folder(day)}"
    try:
        everything = pipeline.landing.look(landing_files.day_folder(day))
    except PermissionError as error:
        denied = {where: f"{where} cannot be listed: {error}; let this process read it"}
        return Found((), denied, "", where, is_denied=True)
    is_denied = is_changing = False
    listed = landing_files.data_files(everything)
    for file in listed:
        if file.trouble:
            broken[file.path] = landing_files.in_words(pipeline.landing, [file])
            is_denied |= file.trouble.may_pass
            continue
        try:
            files.append(landing_files.inspect(pipeline.landing, file, pipeline.spec.input.csv))
        except PermissionError as error:
            broken[file.path] = f"{pipeline.landing.uri}/{file.path}: {error}; let this process read it"
            is_denied = True
        except (UnreadableFileError, OutsideFolderError) as error:
            broken[file.path] = str(error)
        except (FileChangedError, FileNotFoundError, EntryError) as error:
            broken[file.path] = str(error)
            is_changing = True
        except OSError as error:
            if error.errno is None:
                raise  # of the store as a whole
            broken[file.path] = f"{pipeline.landing.uri}/{file.path}: {error.strerror}; see to its disk or mount"
            is_denied = True
    missing = waits_for(pipeline.spec.input.complete, pipeline.landing, day, everything)
    return Found(tuple(files), broken, landing_files.fingerprint(listed), where, missing, is_denied, is_changing)


def raw_input(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The asset of a pipeline."""
    key = asset_key(pipeline, "raw_input")

    @dg.asset(
        key=key,
        description=f"{pipeline.spec.description}\n\nThe day's files in `{pipeline.landing.uri}`, pinned by version.",
        partitions_def=days(pipeline),
        check_specs=specs(pipeline, key, CHECKS, days(pipeline)),
        **asset_options(pipeline, "raw_input", kinds={"parquet"}),
    )
    def _raw_input(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        with step_run(context) as run:
            found = find(pipeline, context.partition_key)
            run.tag(is_about(pipeline, found, run.tags))
            findings = [*found.findings, row_count(pipeline, context.partition_key, found.rows)]
            yield from report(pipeline, key, findings, run.id, context.partition_key)
            pinned = pin(pipeline, context.partition_key, found, run.id, run.started)
            yield dg.MaterializeResult(
                metadata=describe(pinned, found), data_version=dg.DataVersion(pinned.fingerprint)
            )

    return _raw_input


def is_about(pipeline: Pipeline, found: Found, asked_with: Mapping[str, str]) -> dict[str, str]:
    """The tags by which the planner knows what a run has tried.

    A sensor's own word for the code stands: what it has asked for counts as a try of that, whatever was deployed since.
    So does its word for the files, if this process may not see them.
    """
    tags = {} if run_history.CODE in asked_with else {run_history.CODE: run_history.code_in_force(pipeline)}
    if not found.is_denied:
        tags[run_history.FINGERPRINT] = run_history.fingerprint_tag(found.fingerprint, is_complete=not found.waits_for)
    return tags


def row_count(pipeline: Pipeline, day: str, rows: int) -> Finding:
    """Compare the day's rows with those of the days before."""
    before = [pinned.rows for pinned in history.inputs(State(pipeline.output), day)]
    usual = history.usual_range(before, pipeline.spec.checks.row_count_is_usual.tolerance)
    if usual is None:
        message = f"{rows} rows; no history yet: {len(before)} of the 28 days before, expected at least 7"
        return Finding("row_count_is_usual", True, message, observed=rows, expected="no history yet")
    low, high = usual
    expected = f"{low:.0f} to {high:.0f} rows, by the {len(before)} days before"
    passed = low <= rows <= high
    advice = "" if passed else "; ask who delivers the files, then upload what is missing or take away what is too much"
    return Finding(
        "row_count_is_usual",
        passed,
        f"{rows} rows, expected {expected}{advice}",
        observed=rows,
        expected=expected,
        limits=usual,
    )


def pin(pipeline: Pipeline, day: str, found: Found, run_id: str, at: datetime) -> DayInput:
    """Write down which versions of which files are the day's input."""
    pinned = DayInput(day=day, fingerprint=found.fingerprint, files=found.files, run_id=run_id, pinned_at=at)
    State(pipeline.output).put_day_input(pinned)
    return pinned


def describe(pinned: DayInput, found: Found) -> dict[str, dg.MetadataValue]:
    """What an operator asks of the input."""
    records = [
        {"file": file.path, "rows": file.rows, "bytes": file.size, "modified": file.modified.isoformat()}
        for file in sorted(pinned.files, key=lambda file: file.modified, reverse=True)[:FILES_SHOWN]
    ]
    return {
        "dagster/partition_row_count": dg.MetadataValue.int(pinned.rows),
        "dagster/size_bytes": dg.MetadataValue.int(sum(file.size for file in pinned.files)),
        "dagster/uri": dg.MetadataValue.text(found.where),
        "rows": dg.MetadataValue.int(pinned.rows),
        "files": dg.MetadataValue.int(len(pinned.files)),
        "newest_files": ui_table(records),
        "fingerprint": dg.MetadataValue.text(pinned.fingerprint),
    }
