"""Probes of what a day needs: specs, the newest landing file, names in the landing folder, the model bundle."""

import time
from collections import Counter
from collections.abc import Iterator
from datetime import date

from batch_scoring.cli.doctor.probe import ProbeFinding, Site, probe
from batch_scoring.config.compute import executor_name
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import CodeError, ContractError, UnreadableFileError
from batch_scoring.inference.manifest import Manifest
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.quarantine import shortened
from batch_scoring.ingest.schema.contract import Contract
from batch_scoring.monitoring.checks import input_checks, model_checks
from batch_scoring.operations.automation import landing_scan, planner
from batch_scoring.storage.folders.folder import FileVersion

LOOKED_AT = 1_000
"""Number of rows of the newest file that are validated."""
READ_WHOLE = 64 * 2**20
"""Size up to which a file is read to its end."""
MOST_DAYS = 30
"""Number of newest day folders that are searched for a file, at most."""


@probe("specs")
def specs(site: Site) -> Iterator[ProbeFinding]:
    """Every pipeline.yaml is valid, and what it refers to exists."""
    for fault in site.faults:
        where, _, found = fault.partition(": ")
        yield ProbeFinding(
            "error",
            where,
            found or fault,
            "what docs/reference/pipeline-yaml.md accepts; until then the deployment leaves the pipeline out",
            "correct it, then check again: batch-scoring doctor",
        )


@probe("newest landing file", "landing", seconds=60)
def newest_landing_file(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """The newest landing file is complete, and its columns and first rows match the schema."""
    try:
        contract = Contract(pipeline)
    except (ContractError, CodeError) as error:
        yield ProbeFinding(
            "error",
            f"{pipeline.folder}: {pipeline.spec.features.contract}",
            str(error),
            "a schema that decides row by row",
            "correct the pipeline's code",
        )
        return
    file = _newest(pipeline)
    if file is None:
        yield ProbeFinding(
            "warning",
            pipeline.landing.uri,
            "no data file in any of its days",
            f"dt=YYYY-MM-DD/ with files that end in {', '.join(landing_files.ENDINGS)}",
            f"check what uploads them; {input_checks.landing_setting(pipeline)} if they land elsewhere",
        )
        return
    where = f"{pipeline.landing.uri}/{file.path}"
    remedy = f"do what it says last; the schema is {_schema(pipeline)}"
    try:
        if file.size <= READ_WHOLE:
            landing_files.inspect(pipeline.landing, file, pipeline.spec.input.csv)
        yield from _validated(pipeline, contract, file, where)
    except ContractError as error:
        yield ProbeFinding("error", where, str(error), "the schema's columns in the schema's types", remedy)
    except UnreadableFileError as error:
        yield ProbeFinding("error", where, str(error), "a complete file of its format", "upload it again")


@probe("landing names", "landing")
def landing_names(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """Every name in the landing folder is a day, and the newest days contain only files: nothing else is read."""
    children = pipeline.landing.children()
    first, today = pipeline.spec.partitions.start, landing_scan.today(pipeline, time.time())
    days, unexpected = planner.sort_names(children.folders, children.files, first, today, children.troubled)
    for one in unexpected:
        yield ProbeFinding(
            "info" if one.reason.startswith("in the future") else "warning",
            f"{pipeline.landing.uri}/{one.name}",
            f"never scored: {one.reason}",
            *_instead(one.name, first, today),
        )
    for day in days[:MOST_DAYS]:
        for file in landing_files.list_day(pipeline.landing, day):
            if file.trouble:
                found, _, todo = file.trouble.reason.rpartition(": ")
                yield ProbeFinding("error", f"{pipeline.landing.uri}/{file.path}", found, "a file of this folder", todo)


@probe("model bundle", "bundle", "output", seconds=60)
def bundle(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """The bundle is intact, its golden rows agree, its metrics suffice, and its device is present."""
    delivered = model_checks.examine(pipeline)
    for finding in delivered.findings:
        if not finding.passed and not finding.message.startswith("not tested"):
            yield ProbeFinding(
                "error",
                f"{pipeline.bundle.uri} ({finding.check})",
                finding.message,
                model_checks.CHECKS[finding.check],
                "do what it says, deliver the bundle again, or name another in model.bundle of the spec",
            )
    if delivered.bundle is not None:
        yield from _other_order(pipeline, delivered.bundle.manifest)
    metrics = model_checks.metrics(pipeline, delivered)
    if not metrics.passed:
        blocks = pipeline.spec.checks.metrics_meet_threshold.blocking
        yield ProbeFinding(
            "error" if blocks else "warning",
            f"{pipeline.bundle.uri} (metrics_meet_threshold)",
            metrics.message,
            model_checks.CHECKS["metrics_meet_threshold"],
            "deliver a better model, or change the threshold in the spec",
        )
    if pipeline.spec.scoring.device == "cuda" and executor_name() != "k8s":  # under k8s only the pods need it
        import torch

        if not torch.cuda.is_available():
            yield ProbeFinding(
                "error",
                f"{pipeline.name}: scoring.device",
                "cuda, and torch sees no GPU on this machine",
                "a GPU",
                "nvidia-smi; install the CUDA build of torch; or scoring.device: auto",
            )


def _other_order(pipeline: Pipeline, manifest: Manifest) -> Iterator[ProbeFinding]:
    """Features that the spec lists in another order than the bundle."""
    declared = pipeline.spec.features
    for kind, named, needed in (
        ("numeric", declared.numeric, manifest.numeric),
        ("categorical", declared.categorical, tuple(manifest.categorical)),
    ):
        if needed != tuple(name for name in named if name in needed):
            yield ProbeFinding(
                "info",
                f"{pipeline.folder / 'pipeline.yaml'}: features.{kind}",
                f"its order differs from the bundle's: {', '.join(needed)}; the network gets the bundle's order",
                remedy="nothing: scores do not depend on the order in the spec",
            )


def _instead(name: str, first: date, today: date) -> tuple[str, str]:
    """What is expected instead of an unexpected name in the landing folder, and what to do."""
    day = landing_files.meant_day(name)
    if day is None:
        return "dt=YYYY-MM-DD/", "move it to its day, or let its name begin with _"
    if name.rstrip("/") != f"dt={day}":
        return f"dt={day}/", f"rename it to dt={day}/, or let its name begin with _"
    if day < first:
        return f"a day from {first} on", f"set partitions.start to {day} or earlier, or let its name begin with _"
    return f"a day up to {today}", "correct its date if it is wrong; otherwise it is scored when its day has come"


def _schema(pipeline: Pipeline) -> str:
    return f"{pipeline.folder / pipeline.spec.features.contract.split(':')[0]}.py"


def _newest(pipeline: Pipeline) -> FileVersion | None:
    """The last uploaded file of the newest day that has one."""
    names = (name for name in pipeline.landing.children().folders if name.startswith("dt="))
    for name in sorted(names, reverse=True)[:MOST_DAYS]:
        listed = landing_files.list_day(pipeline.landing, name.removeprefix("dt="))
        if files := [file for file in listed if not file.trouble]:
            return landing_files.newest_first(files)[0]
    return None


def _validated(pipeline: Pipeline, contract: Contract, file: FileVersion, where: str) -> Iterator[ProbeFinding]:
    """Findings about the columns of a file, and why its first rows are rejected."""
    seen, reasons, rejected = 0, Counter[str](), 0
    examples: dict[str, str | None] = {}
    advice: set[str] = set()
    with landing_files.open_rows(pipeline.landing, file, pipeline.spec.input.csv, contract.columns) as rows:
        unexpected = contract.unexpected(rows.schema, where, is_text=rows.is_text)
        for part in rows.read(0, LOOKED_AT):
            result = contract.validate(part.batch, is_text=rows.is_text)
            seen += len(part)
            rejected += len(result.rejected) + len(part.broken)
            for reason in result.rejected.values():
                name = f"{reason.column} {reason.rule}"
                reasons[name] += 1
                examples.setdefault(name, None if reason.value is None else shortened(reason.value))
                advice |= {reason.advice} - {""}
            if part.broken:
                reasons["rows that cannot be parsed"] += len(part.broken)
                examples.setdefault("rows that cannot be parsed", part.broken[0].detail)
    if unexpected:
        yield ProbeFinding(
            "info",
            where,
            f"columns that the schema does not know: {', '.join(unexpected)}; they are ignored",
            remedy=f"if the model needs them: {_schema(pipeline)}",
        )
    limits = pipeline.spec.checks.quarantine_is_small
    stops = rejected > limits.blocking_share * seen or 0 < seen == rejected
    if stops or rejected > limits.most(seen):
        main = "; ".join(f"{name}: {count} ({examples[name]!r})" for name, count in reasons.most_common(3))
        yield ProbeFinding(
            "error" if stops else "warning",
            where,
            f"{rejected} of its first {seen} rows are rejected: {main}",
            f"at most {limits.most(seen):.0f} of so many rows",
            "; ".join([f"check what has changed upstream; correct the file or {_schema(pipeline)}", *sorted(advice)]),
        )
