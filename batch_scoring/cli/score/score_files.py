"""Score files into an output file or folder, without a day.

The rows go through the same stream as those of a day (`daily/stream.py`), without a table and without Dagster. The
checks that guarantee complete and unique rows, and those that block in the spec, stop this too: then nothing is
written, not even the quarantine, and an older output stays. Checks that compare with other days do not run.
"""

import contextlib
import errno
import json
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TextIO
from uuid import uuid4

from batch_scoring.cli.score.file_stream import QuarantineFile, Stream
from batch_scoring.cli.score.locations import InputFiles, OutputFiles, ensure_no_overlap, find_input, name_output
from batch_scoring.cli.score.outputs import Outputs
from batch_scoring.cli.score.summary import Summary
from batch_scoring.config.loader import survey_pipelines
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import scored_rows
from batch_scoring.errors import (
    AddressError,
    BatchScoringError,
    HeldError,
    PartlyWrittenError,
    TakenError,
    is_out_of_memory,
)
from batch_scoring.ingest import landing_files, quarantine
from batch_scoring.monitoring.checks import model_checks
from batch_scoring.monitoring.finding import stops
from batch_scoring.runtime import locks, signals
from batch_scoring.runtime.progress import Bar

LINEAGE = b"batch_scoring"
"""Key of the metadata in a Parquet output: run, input and model."""

Note = Callable[[str], object]


@dataclass(frozen=True)
class ScoreRequest:
    """The options of the command line."""

    input: str
    output: str
    overwrite: bool = False
    """Replace an existing output."""
    wait: bool = False
    """Wait for another process that is writing the same output."""
    as_json: bool = False


def run(pipeline: Pipeline, request: ScoreRequest, out: TextIO, err: TextIO) -> int:
    """Score an input into an output: 0 if it was written, 1 if something failed, 2 if the command was wrong.

    Args:
        pipeline: with the schema, the model and the checks.
        request: the options.
        out: receives the summary.
        err: receives errors, and a progress bar if it is a terminal.
    """
    bar = Bar(err)

    def note(line: str) -> None:
        bar.clear()
        err.write(f"batch-scoring: {line}\n")

    code, why = 1, ""
    summary = None
    try:
        with signals.at_end(bar.clear):
            summary = perform(pipeline, request, bar, note)
    except TakenError as error:
        code, why = error.exit_code, f"{error}; nothing is written: add --overwrite to replace it"
    except PartlyWrittenError as error:
        why = f"{_in_one_line(error.__cause__ or error)}; {error}"
    except BatchScoringError as error:
        code, why = error.exit_code, str(error) if error.exit_code == 2 else f"{error}; nothing is written"
    except Exception as error:
        why = f"{_in_one_line(error)}; nothing is written"
    finally:
        bar.clear()
    if summary is None:
        note(why)
        return code
    out.write(json.dumps(summary.document(), indent=1) + "\n" if request.as_json else summary.text())
    for finding in summary.stopping:
        note(f"{finding.check}: {finding.message}")
    return 0 if summary.written else 1


def perform(pipeline: Pipeline, request: ScoreRequest, bar: Bar, note: Note) -> Summary:
    """Find the input, lock the output, and score.

    Raises:
        AddressError: input or output is not usable; or the output exists and may not be replaced.
        HeldError: another process is writing the same output.
        Others: see `score`.
    """
    with contextlib.ExitStack() as held:
        with signals.at_end(lambda: "nothing is written"):
            output = name_output(request.output)
            source = find_input(request.input)
            survey = survey_pipelines()
            ensure_no_overlap(source, output, [pipeline, *survey.valid], survey.broken)
            held.enter_context(_held(output, request, note))
            _check_unused(output, request)
        return score(pipeline, source, output, replaces=request.overwrite, bar=bar, note=note)


def score(
    pipeline: Pipeline, source: InputFiles, output: OutputFiles, *, replaces: bool, bar: Bar, note: Note
) -> Summary:
    """Score an input into an output, which becomes visible when it is complete.

    Args:
        pipeline: with the schema, the model and the checks.
        source: the input.
        output: the files to write, locked by this process.
        replaces: whether existing files may be replaced.
        bar: shows the progress.
        note: receives warnings, one line each.

    Returns:
        The summary; if a blocking check failed, `written` is false and the output is unchanged.

    Raises:
        TakenError: the output appeared in the meantime; it is left as it is.
        PartlyWrittenError: some files are written and others are not; the message names them.
        Others: nothing is written.
    """
    began, at, run_id = perf_counter(), datetime.now(UTC), str(uuid4())
    with Outputs(output, pipeline.spec.input.csv) as files:
        files.reserve(output.predictions)  # fails now if writing is not permitted
        stream = Stream(pipeline, source, at, note)
        loading = perf_counter() - began
        lineage = {LINEAGE: json.dumps(_lineage(pipeline, source, stream, run_id)).encode()}
        rejected_form = quarantine.file_schema(stream.key).with_metadata(lineage)
        rejections = QuarantineFile(
            lambda: files.begin(output.quarantine, rejected_form, ("stage", "rule", "column", "source_file")),
            stream.key,
        )
        write = files.begin(output.predictions, stream.schema.with_metadata(lineage), scored_rows.DICTIONARY)
        stream.run(write, rejections, bar)
        bar.clear()
        metrics = model_checks.metrics(pipeline, model_checks.Delivered(stream.bundle, []))
        findings = [*stream.findings(rejections.counts, run_id), metrics]
        stopping = [finding for finding in findings if stops(pipeline, finding)]
        if not stopping:
            files.finish()
        summary = Summary(
            pipeline=pipeline.name,
            source=source,
            output=output,
            run_id=run_id,
            started=at,
            seconds=perf_counter() - began,
            loading=loading,
            rows_in=stream.rows_in,
            rows_scored=stream.scoring.ledger.kept.rows,
            counts=rejections.counts,
            examples=rejections.examples,
            model_version=stream.scorer.manifest.version,
            model_sha256=stream.bundle.sha256,
            device=stream.scorer.device,
            batch_rows=stream.scorer.batch_rows,
            unknown=stream.scoring.tally.figures()["unknown"],
            failed=[finding for finding in findings if not finding.passed],
            stopping=stopping,
        )
        if summary.written:
            if output.summary:
                files.put(output.summary, json.dumps(summary.document(), indent=1).encode() + b"\n")
            for warning in files.show(replaces=replaces):
                note(warning)
        return summary


def _in_one_line(error: BaseException) -> str:
    """One line for an error; an unexpected one, from a library or a bug, with its place in the code."""
    if isinstance(error, OSError) and error.errno != errno.ENOMEM:
        return f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    text = " ".join(str(error).split())[:300]
    if isinstance(error, OSError) or is_out_of_memory(error):
        words = "not enough memory: a smaller scoring.batch_rows in the spec needs less"
        return f"{words} ({text})" if text else words
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text or 'no message'} ({Path(place.filename).name}, line {place.lineno})"


def _check_unused(output: OutputFiles, request: ScoreRequest) -> None:
    if not request.overwrite and (existing := output.existing()):
        raise AddressError(f"{' and '.join(existing)} exists already; nothing is written: --overwrite replaces it")


@contextlib.contextmanager
def _held(output: OutputFiles, request: ScoreRequest, note: Note) -> Iterator[None]:
    """Lock the output against this user's other processes on this machine, by the files that it consists of."""
    name = ("output", f"{output.folder.canonical}/{output.predictions}")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.hold(*name))
        except HeldError as held:
            if not request.wait:
                raise HeldError(f"--output {request.output}: {held}; add --wait to wait until it ends") from None
            _check_unused(output, request)  # any end of the other process will do
            note(f"{request.output}: {held}; waiting until it ends")
            stack.enter_context(locks.hold(*name, waits=True))
        yield


def _lineage(pipeline: Pipeline, source: InputFiles, stream: Stream, run_id: str) -> dict[str, str]:
    return {
        "run_id": run_id,
        "pipeline": pipeline.name,
        "input": source.uri,
        "input_fingerprint": landing_files.fingerprint(source.files),
        "model_version": stream.scorer.manifest.version,
        "model_sha256": stream.bundle.sha256,
        "code_version": pipeline.scoring_code,
        "features_code": pipeline.features_code,
    }
