"""The findings of raw_input's checks: a day's landing files, listed and inspected."""

from dataclasses import dataclass

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import trailing_days
from batch_scoring.errors import EntryError, FileChangedError, OutsideFolderError, UnreadableFileError
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.completeness import waits_for
from batch_scoring.monitoring.finding import Finding
from batch_scoring.storage.state import LandingFile, State

LISTINGS = 3
"""Attempts to list a day whose files change during the inspection."""

CHECKS = {
    "input_is_present": "The day has at least one landing file, and at least one row in them.",
    "input_is_complete": "Every file of the day can be read (a text file to its end, a Parquet file's footer), "
    "and the marker or manifest that the spec asks for is there.",
    "row_count_is_usual": "The day has about as many rows as the 28 days before it. Fails with over 25 % (`tolerance`) "
    "more or fewer rows than on all but one of those days.",
}


@dataclass(frozen=True)
class Found:
    """The landing files of a day, as found."""

    files: tuple[LandingFile, ...]
    broken: dict[str, str]
    """Files that cannot be read, and why."""
    fingerprint: str
    where: str
    remedy: str = ""
    """What to do if there are no rows."""
    waits_for: str = ""
    """What the day lacks of what the spec requires for a complete day."""
    is_denied: bool = False
    """Whether something cannot be read by this process: the same files may pass the next time."""
    is_changing: bool = False
    """Whether a file was replaced or removed between its listing and its inspection."""

    @property
    def rows(self) -> int:
        """Rows of all readable files."""
        return sum(file.rows for file in self.files)

    @property
    def findings(self) -> list[Finding]:
        """The findings input_is_present and input_is_complete."""
        present = bool(self.rows or self.broken)
        count = "1 file" if len(self.files) == 1 else f"{len(self.files) or 'no'} files"
        seen = f"{count} with {self.rows} rows in {self.where}" if self.files else f"{count} in {self.where}"
        troubles = [*self.broken.values(), *([self.waits_for] if self.waits_for else [])]
        complete = "; ".join(troubles) or "every file can be read"
        figures = {"files": len(self.files) + len(self.broken), "rows": self.rows}
        advice = "" if present else f"; {self.remedy}"
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
    """List and inspect the day's landing files, again if one changes meanwhile."""
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
        denied = {where: f"{where} cannot be listed: {error}; grant this process read access"}
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
            broken[file.path] = f"{pipeline.landing.uri}/{file.path}: {error}; grant this process read access"
            is_denied = True
        except (UnreadableFileError, OutsideFolderError) as error:
            broken[file.path] = str(error)
        except (FileChangedError, FileNotFoundError, EntryError) as error:
            broken[file.path] = str(error)
            is_changing = True
        except OSError as error:
            if error.errno is None:
                raise  # of the store as a whole
            broken[file.path] = f"{pipeline.landing.uri}/{file.path}: {error.strerror}; check its disk or mount"
            is_denied = True
    missing = waits_for(pipeline.spec.input.complete, pipeline.landing, day, everything)
    remedy = "" if broken or any(file.rows for file in files) else _remedy(pipeline, day)
    name = landing_files.fingerprint(listed)
    return Found(tuple(files), broken, name, where, remedy, missing, is_denied, is_changing)


def _remedy(pipeline: Pipeline, day: str) -> str:
    """What to do about a day without rows."""
    if similar := landing_files.namesakes(pipeline.landing, day):
        return f"there is {', '.join(similar)}: rename it to {landing_files.day_folder(day)}"
    return f"upload the day's files there, or {landing_setting(pipeline)}"


def landing_setting(pipeline: Pipeline) -> str:
    """How to make the pipeline read another landing folder."""
    return f"{'correct' if pipeline.spec.input.landing else 'set'} input.landing in the spec"


def row_count(pipeline: Pipeline, day: str, rows: int) -> Finding:
    """The finding row_count_is_usual: the day's rows compared with those of the days before."""
    before = [pinned.rows for pinned in trailing_days.inputs(State(pipeline.output), day)]
    usual = trailing_days.usual_range(before, pipeline.spec.checks.row_count_is_usual.tolerance)
    if usual is None:
        message = f"{rows} rows; no history yet: {len(before)} of the 28 days before, expected at least 7"
        return Finding("row_count_is_usual", True, message, observed=rows, expected="no history yet")
    low, high = usual
    expected = f"{low:.0f} to {high:.0f} rows, by the {len(before)} days before"
    passed = low <= rows <= high
    advice = "" if passed else "; ask the supplier of the files, then upload what is missing or remove the surplus"
    return Finding(
        "row_count_is_usual",
        passed,
        f"{rows} rows, expected {expected}{advice}",
        observed=rows,
        expected=expected,
        limits=usual,
    )
