"""The subcommand `decide`: what other rules would do about a day, beside what is published; writes nothing."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from batch_scoring.cli.parameters import DAY, Subcommand
from batch_scoring.runtime.printable import guarded

if TYPE_CHECKING:
    from batch_scoring.config.delivery_spec import Decisions


@click.command(cls=Subcommand)
@click.argument("pipeline", help="Name of the pipeline, for example flight_delay.")
@click.argument("day", type=DAY, help="A scored day.")
@click.option(
    "--try",
    "file",
    metavar="FILE",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A YAML file with other rules, such as an edited copy of pipeline.yaml; only its section decisions counts.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def decide(pipeline: str, day: date, *, file: Path, as_json: bool) -> int:
    """Show what other rules would decide about a scored day.

    Prints the rows by action and by reason, beside those that are published. Nothing is written.
    """
    return compare(pipeline, str(day), file, guarded(sys.stdout), as_json=as_json)


@dataclass(frozen=True)
class Compared:
    """A day's decisions by the rules that were tried, beside the published ones."""

    pipeline: str
    day: str
    rows: int
    actions: Mapping[str, int]
    reasons: Mapping[str, int]
    published_actions: Mapping[str, int] | None
    """None if the day is not decided."""
    published_reasons: Mapping[str, int] | None
    is_outdated: bool
    """Whether the published decisions are of other scores than those that are published now."""


def compare(name: str, day: str, file: Path, out: TextIO, *, as_json: bool = False) -> int:
    """Print what the rules of a file would decide about a day; 0.

    Raises:
        SpecError, UnknownPipelineError: the file has no valid section `decisions`; no pipeline has that name.
        StateError: the day is not scored.
        RuleError, DecisionError: the day cannot be decided by these rules.
    """
    compared = try_rules(name, day, read_decisions(file))
    if as_json:
        json.dump(_document(compared, file), out, indent=1)
        out.write("\n")
    else:
        out.writelines(f"{line}\n" for line in _lines(compared, file))
    return 0


def read_decisions(file: Path) -> "Decisions":
    """The section `decisions` of a file.

    Raises:
        SpecError: it has none, or the section is invalid.
    """
    import yaml
    from pydantic import ValidationError

    from batch_scoring.config.delivery_spec import Decisions
    from batch_scoring.config.validation import spec_file
    from batch_scoring.config.validation.spec_validation import field_errors
    from batch_scoring.errors import SpecError

    try:
        content, errors = spec_file.read(file)
    except yaml.MarkedYAMLError as error:
        problem, line = spec_file.problem_of(error)
        raise SpecError([f"{file}{f' line {line}' if line else ''}: {problem}"]) from error
    except (yaml.YAMLError, OSError, ValueError, TypeError) as error:
        raise SpecError([f"{file}: {' '.join(str(error).split())}"]) from error
    if content.get("decisions") is None:
        errors.append("decisions: missing; expected the section as pipeline.yaml has it")
    refused: spec_file.Refused = {}
    section = spec_file.expand(content.get("decisions"), refused, ("decisions",))
    errors += [f"{'.'.join(path)}: {error}" for path, error in refused.items()]
    if errors:
        raise SpecError([f"{file}: {error}" for error in errors])
    try:
        return Decisions.model_validate(section)
    except ValidationError as error:
        located = [{**one, "loc": ("decisions", *one["loc"])} for one in error.errors()]
        raise SpecError([f"{file}: {one}" for one in field_errors(located)]) from error  # type: ignore[arg-type]


def try_rules(name: str, day: str, rules: "Decisions") -> Compared:
    """Decide about a day by other rules.

    Raises:
        UnknownPipelineError, StateError, RuleError, DecisionError: see `compare`.
    """
    from batch_scoring.config.loader import find_pipeline  # late: --help does not need them
    from batch_scoring.daily.freshness import are_of
    from batch_scoring.daily.publish import DayStep
    from batch_scoring.delivery.decisions.prepare import day_rows, decide_day, read_source
    from batch_scoring.errors import StateError
    from batch_scoring.monitoring.checks.decision_checks import counted

    pipeline = find_pipeline(name)
    step = DayStep(pipeline, day, "decisions")
    if step.state.published_day("predictions", day) is None:
        raise StateError(f"{day} is not scored; run: batch-scoring backfill {name} {day} {day}")
    source = read_source(step, rules)
    decided = decide_day(pipeline, rules, day, day_rows(step, source), source.earlier)
    published = step.state.published_day("decisions", day)
    return Compared(
        pipeline.name,
        day,
        source.predictions.rows,
        decided.action_counts,
        decided.reason_counts,
        counted(published.shards, "actions") if published else None,
        counted(published.shards, "reasons") if published else None,
        is_outdated=published is not None and not are_of(published, source.predictions),
    )


def _document(compared: Compared, file: Path) -> dict[str, Any]:
    return {
        "pipeline": compared.pipeline,
        "day": compared.day,
        "file": str(file),
        "rows": compared.rows,
        "actions": _both(compared.published_actions, compared.actions),
        "reasons": _both(compared.published_reasons, compared.reasons),
        "published_is_outdated": compared.is_outdated,
    }


def _both(published: Mapping[str, int] | None, tried: Mapping[str, int]) -> dict[str, dict[str, int | None]]:
    """Both counts by name; that of nothing published is null."""
    return {
        name: {"published": None if published is None else published.get(name, 0), "tried": tried.get(name, 0)}
        for name in dict.fromkeys((*tried, *(published or ())))
    }


def _lines(compared: Compared, file: Path) -> Iterator[str]:
    yield f"{compared.pipeline} {compared.day}: {compared.rows:,} scored rows, by the rules of {file}"
    if compared.published_actions is None:
        yield "the day is not decided: there is nothing to compare with"
    if compared.is_outdated:
        yield "the published decisions are of earlier scores: the day is to be run again"
    for title, both in (
        ("action", _both(compared.published_actions, compared.actions)),
        ("reason", _both(compared.published_reasons, compared.reasons)),
    ):
        width = max(len(name) for name in (title, *both))
        yield ""
        yield f"{title:<{width}}  {'published':>12}  {'tried':>12}  {'change':>12}"
        for name, counts in both.items():
            before, tried = counts["published"], counts["tried"] or 0
            shown = ("-", "-") if before is None else (f"{before:,}", f"{tried - before:+,}" if tried != before else "")
            yield f"{name:<{width}}  {shown[0]:>12}  {tried:>12,}  {shown[1]:>12}".rstrip()
    yield ""
    yield "nothing was written"
