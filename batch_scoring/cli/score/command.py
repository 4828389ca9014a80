"""Files scored from a shell, without a day: `batch-scoring score`.

The rows go through the same stream as those of a day (`daily/stream.py`), without a table and without Dagster. The
checks that guard promises, and those of the spec that block, stop this too: nothing is written then, also no
quarantine, and what stood before stands. Checks that compare with other days are not asked.
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

from batch_scoring.cli.score.addresses import Input, Output, find_input, name_output, refuse_overlap
from batch_scoring.cli.score.outputs import Outputs
from batch_scoring.cli.score.stream import QuarantineFile, Stream
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
"""Key of a Parquet output's metadata: which command wrote it, from what, with which model."""

Note = Callable[[str], object]


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    input: str
    output: str
    overwrite: bool = False
    """Replace an output that exists."""
    wait: bool = False
    """Wait for another process that writes the same output."""
    as_json: bool = False


def command(pipeline: Pipeline, request: Request, out: TextIO, err: TextIO) -> int:
    """Score an input into an output: 0 if that was written, 1 if something failed, 2 if it cannot be asked for.

    Args:
        pipeline: whose schema, model and checks.
        request: what is asked for.
        out: is told the summary.
        err: is told what is wrong, and shown a bar if it is a terminal.
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
        why = f"{_said(error.__cause__ or error)}; {error}"
    except BatchScoringError as error:
        code, why = error.exit_code, str(error) if error.exit_code == 2 else f"{error}; nothing is written"
    except Exception as error:
        why = f"{_said(error)}; nothing is written"
    finally:
        bar.clear()
    if summary is None:
        note(why)
        return code
    out.write(json.dumps(summary.document(), indent=1) + "\n" if request.as_json else summary.text())
    for finding in summary.stopping:
        note(f"{finding.check}: {finding.message}")
    return 0 if summary.written else 1


def perform(pipeline: Pipeline, request: Request, bar: Bar, note: Note) -> Summary:
    """Find what is asked for, hold the output, and score.

    Raises:
        AddressError: input or output is not one; or the output exists and may not be replaced.
        HeldError: another process writes the same output.
        Others: see `score`.
    """
    with contextlib.ExitStack() as held:
        with signals.at_end(lambda: "nothing is written"):
            output = name_output(request.output)
            source = find_input(request.input)
            survey = survey_pipelines()
            refuse_overlap(source, output, [pipeline, *survey.valid], survey.broken)
            held.enter_context(_held(output, request, note))
            _refuse_standing(output, request)
        return score(pipeline, source, output, replaces=request.overwrite, bar=bar, note=note)


def score(pipeline: Pipeline, source: Input, output: Output, *, replaces: bool, bar: Bar, note: Note) -> Summary:
    """Score an input into an output; nothing of it is to be seen before all of it is.

    Args:
        pipeline: whose schema, model and checks.
        source: what to score.
        output: what to write, held by nobody else.
        replaces: whether files that stand there may be replaced.
        bar: shows how far it is.
        note: is told what a person should know.

    Returns:
        What happened; where a blocking check failed, `written` is false and the output is as it was.

    Raises:
        TakenError: the output came to be there meanwhile; it is left as it is.
        PartlyWrittenError: some files are written and others are not; the message says which.
        Others: nothing is written.
    """
    began, at, run_id = perf_counter(), datetime.now(UTC), str(uuid4())
    with Outputs(output, pipeline.spec.input.csv) as files:
        files.reserve(output.predictions)  # says now what is not permitted
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
            for said in files.show(replaces=replaces):
                note(said)
        return summary


def _said(error: BaseException) -> str:
    """One line for an error; one that nobody has foreseen, a library's or a bug, with its place."""
    if isinstance(error, OSError) and error.errno != errno.ENOMEM:
        return f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    said = " ".join(str(error).split())[:300]
    if isinstance(error, OSError) or is_out_of_memory(error):
        words = "not enough memory: a smaller scoring.batch_rows in the spec needs less"
        return f"{words} ({said})" if said else words
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {said or 'no message'} ({Path(place.filename).name}, line {place.lineno})"


def _refuse_standing(output: Output, request: Request) -> None:
    if not request.overwrite and (standing := output.standing()):
        raise AddressError(
            f"{' and '.join(standing)} stands there already; nothing is written: --overwrite replaces it"
        )


@contextlib.contextmanager
def _held(output: Output, request: Request, note: Note) -> Iterator[None]:
    """Hold the output against this user's other processes on this machine; the same files are the same output."""
    name = ("output", f"{output.folder.canonical}/{output.predictions}")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.hold(*name))
        except HeldError as held:
            if not request.wait:
                raise HeldError(f"--output {request.output}: {held}; add --wait to wait for its end") from None
            _refuse_standing(output, request)  # whatever the other does
            note(f"{request.output}: {held}; waiting for its end")
            stack.enter_context(locks.hold(*name, waits=True))
        yield


def _lineage(pipeline: Pipeline, source: Input, stream: Stream, run_id: str) -> dict[str, str]:
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
