"""Exports by command: the days that are behind, their outcomes, and how the command ends."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.cli.export import export_days
from batch_scoring.cli.export.export_days import Done, Request, Task
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.delivery.exports import pending
from batch_scoring.delivery.exports.pending import PendingDay
from batch_scoring.errors import RangeError
from batch_scoring.operations.retention import vacuum
from batch_scoring.operations.retention.plan import limits_of
from batch_scoring_tests.backfills import tree
from batch_scoring_tests.exports import NAME, break_sink, exported, manifest, mend_sink, scored, with_export
from batch_scoring_tests.tiny import TinyProject

DAYS = ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"]


@pytest.fixture(autouse=True)
def _found(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command finds the tiny pipeline by its name."""
    monkeypatch.setattr(export_days, "find_pipeline", lambda name: tiny.pipeline)


def export(tiny: TinyProject, name: str | None = None, first: str = DAYS[0], **options: bool | str) -> tuple[int, str]:
    """Exit code and output; `last`: the last day."""
    last = str(options.pop("last", DAYS[-1]))
    out = io.StringIO()
    code = export_days.export(tiny.name, name, date.fromisoformat(first), date.fromisoformat(last), out, **options)
    return code, out.getvalue()


def outcomes(text: str) -> list[str]:
    """Day, export and outcome of every row."""
    rows = [re.split(r"\s{2,}", line) for line in text.splitlines() if re.match(r"2024-", line)]
    return [" ".join(cells[:3]) for cells in rows]


def test_days_that_are_behind_are_exported_and_others_are_not(tiny: TinyProject) -> None:
    scored(with_export(tiny), *DAYS[:3])
    code, said = export(tiny)
    assert (code, outcomes(said)) == (0, [f"{day} list exported" for day in DAYS[:3]])
    assert manifest(tiny, DAYS[0]) and exported(tiny, DAYS[2]).num_rows == 12
    assert export(tiny) == (
        0,
        f"nothing to do from {DAYS[0]} to {DAYS[3]}: exported as published; has no predictions yet\n"
        "no sink was asked; --again exports what is exported already, too\n",
    )
    assert export(tiny, first=DAYS[3])[1].count("\n") == 1, "nothing is exported of these days"
    scored(tiny, DAYS[1], rows=13)
    assert outcomes(export(tiny)[1]) == [f"{DAYS[1]} list exported"]


def test_all_exports_of_a_day_or_the_named_one(tiny: TinyProject) -> None:
    with_export(with_export(tiny), "other", days=["mon"])
    scored(tiny, *DAYS[2:])
    assert outcomes(export(tiny, "other")[1]) == [f"{DAYS[3]} other exported"]
    assert outcomes(export(tiny)[1]) == [f"{DAYS[2]} list exported", f"{DAYS[3]} list exported"]


def test_again_exports_what_is_exported(tiny: TinyProject) -> None:
    scored(with_export(tiny), DAYS[0])
    export(tiny)
    before = manifest(tiny, DAYS[0])
    code, said = export(tiny, again=True)
    assert (code, outcomes(said)) == (0, [f"{DAYS[0]} list exported"])
    after = manifest(tiny, DAYS[0])
    assert before and after and before.run_id != after.run_id


def test_a_dry_run_says_why_and_writes_nothing(tiny: TinyProject) -> None:
    scored(with_export(tiny, days=["fri", "sat", "sun"]), *DAYS[:2])
    export(tiny, last=DAYS[0])
    before = tree(Path(tiny.data_root))
    code, said = export(tiny, dry_run=True)
    assert (code, tree(Path(tiny.data_root))) == (0, before)
    lines = [re.split(r"\s{2,}", line, maxsplit=3) for line in said.splitlines()]
    marks = ["-", "export", "-", "-"]
    assert [line[:3] for line in lines] == [[day, NAME, mark] for day, mark in zip(DAYS, marks, strict=True)]
    assert lines[0][3].startswith("exported as published, 12 rows by run ")
    assert [line[3] for line in lines[1:]] == [
        "it is published and not exported",
        "has no predictions yet",
        "no day of this export, which has days: fri, sat, sun",
    ]


def test_a_dry_run_says_of_a_list_that_is_kept_that_it_stays(tiny: TinyProject) -> None:
    scored(with_export(tiny, corrections="keep"), DAYS[0])
    export(tiny, last=DAYS[0])
    scored(tiny, DAYS[0], rows=13)
    corrected = "export  its day was corrected since it was exported"
    said = export(tiny, last=DAYS[0], dry_run=True)[1].strip()
    assert said.endswith(f"{corrected}; what was exported stays")
    assert outcomes(export(tiny, last=DAYS[0])[1]) == [f"{DAYS[0]} list kept"]
    scored(tiny, DAYS[0], rows=14)
    assert export(tiny, last=DAYS[0], dry_run=True, again=True)[1].strip().endswith(corrected)


def test_json_has_the_same_facts(tiny: TinyProject) -> None:
    scored(with_export(tiny), *DAYS[:2])
    plan = json.loads(export(tiny, as_json=True, dry_run=True)[1])
    assert [(task["day"], task["is_open"]) for task in plan["days"]] == [(day, day in DAYS[:2]) for day in DAYS]
    done = json.loads(export(tiny, as_json=True)[1])
    assert done["pipeline"] == tiny.name
    assert [(one["day"], one["export"], one["outcome"], one["rows"]) for one in done["days"]] == [
        (day, NAME, "exported", 12) for day in DAYS[:2]
    ]
    assert json.loads(export(tiny, as_json=True)[1])["days"] == []


def test_an_export_that_fails_does_not_stop_others_and_is_given_up_after_three_days(tiny: TinyProject) -> None:
    with_export(with_export(tiny), "other", path="elsewhere/other_{day}.csv")
    scored(tiny, *DAYS)
    break_sink(tiny)
    code, said = export(tiny)
    assert code == 1
    found = outcomes(said)
    assert [line for line in found if "other" in line] == [f"{day} other exported" for day in DAYS]
    assert [line for line in found if "list" in line] == [f"{day} list failed" for day in DAYS[:3]] + [
        f"{DAYS[3]} list not tried"
    ]
    assert "4 of 8 exports failed:" in said and "exports_before" not in said
    mend_sink(tiny)
    assert export(tiny)[0] == 0


def test_days_that_cannot_be_exported_do_not_count_as_failures_of_the_sink(tiny: TinyProject) -> None:
    scored(with_export(tiny, columns=["id", "x"]), *DAYS)
    for day in DAYS[:3]:  # validated again, and not scored
        tiny.land(day, tiny.rows(13), "a.parquet")
        tiny.run(day, ["raw_input", "validated_features"])
    code, said = export(tiny)
    assert (code, outcomes(said)) == (
        1,
        [*(f"{day} list not tried" for day in DAYS[:3]), f"{DAYS[3]} list exported"],
    )
    assert f"{DAYS[0]}  list: its predictions were scored from other features than those that are published" in said


def test_days_that_retention_has_removed_do_not_keep_later_ones_from_being_exported_again(tiny: TinyProject) -> None:
    scored(with_export(tiny, columns=["id", "x"]), *DAYS)
    export(tiny)
    for file in Path(tiny.pipeline.output.uri, "tables").glob("validated_features/dt=2024-03-0[123]/*.parquet"):
        os.utime(file, (0, 0))
    tiny.spec["retention"] = {"features_days": 30}
    tiny.write_spec()
    done = vacuum.sweep(tiny.pipeline, vacuum.look(tiny.pipeline, limits_of(tiny.pipeline.spec.retention)), "r")
    assert done.removed and not done.problems
    code, said = export(tiny, again=True)
    assert (code, outcomes(said)) == (
        1,
        [*(f"{day} list not tried" for day in DAYS[:3]), f"{DAYS[3]} list exported"],
    )
    assert f"{DAYS[0]}  list: retention has removed the features of" in said


def test_a_day_that_is_published_while_the_days_are_looked_up_is_left_for_the_next_time(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(with_export(tiny), DAYS[0])
    among = pending.among

    def slowly(pipeline: Pipeline, name: str, days: Sequence[str]) -> list[PendingDay]:
        found = among(pipeline, name, days)
        scored(tiny, DAYS[1])
        return found

    monkeypatch.setattr(pending, "among", slowly)
    assert outcomes(export(tiny)[1]) == [f"{DAYS[0]} list exported"]


@pytest.mark.parametrize(
    ("name", "first", "says"),
    [
        ("wrong", DAYS[0], "has no export 'wrong'; its exports are: list"),
        (None, "2023-01-01", "2023-01-01 is not a day of"),
    ],
)
def test_a_wrong_request_is_refused(tiny: TinyProject, name: str | None, first: str, says: str) -> None:
    with_export(tiny)
    with pytest.raises(RangeError, match=says):
        export(tiny, name, first)


def test_a_pipeline_without_exports_says_so(tiny: TinyProject) -> None:
    with pytest.raises(RangeError, match="has no exports; add a section exports to its pipeline"):
        export(tiny)


def test_what_is_left_is_continued_with(tiny: TinyProject) -> None:
    with_export(tiny)
    tasks = [Task(NAME, day, "", True) for day in DAYS]
    request = Request(tiny.pipeline, (NAME,), NAME, tuple(DAYS), again=True)
    done = [Done(NAME, DAYS[0], "exported"), Done(NAME, DAYS[1], "failed")]

    def said(*outcomes: Done) -> str:
        return export_days._continuation(request, tasks, outcomes)

    assert said(*done) == f"continue with: batch-scoring export {tiny.name} list {DAYS[1]} {DAYS[3]} --again"
    assert said(*[Done(NAME, day, "exported") for day in DAYS]) == "everything is exported"


def test_ctrl_c_ends_it_at_once_with_the_command_that_continues(tiny: TinyProject, tmp_path: Path) -> None:
    scored(with_export(tiny), *DAYS)
    home = tmp_path / "home"
    home.mkdir()
    code = f"""
import sys, threading, os, signal, time
from batch_scoring.config import loader
from batch_scoring.cli.export import export_days
from batch_scoring.delivery.exports.files import FileSink
from pathlib import Path
pipeline = next(p for p in loader.load_pipelines(Path({str(tiny.packages)!r}), {tiny.data_root!r}))
import batch_scoring.pipelines
export_days.find_pipeline = lambda name: pipeline
deliver = FileSink.deliver
def slow(sink, delivery):
    if delivery.day == "{DAYS[1]}":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    return deliver(sink, delivery)
FileSink.deliver = slow
from batch_scoring.runtime import signals
signals.watch("batch-scoring")
from batch_scoring.cli import subcommands
sys.exit(subcommands.run(["export", "{tiny.name}", "{DAYS[0]}", "{DAYS[3]}"]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "DAGSTER_HOME": str(home)},
        timeout=120,
    )
    assert ended.returncode == 130, ended.stderr
    assert f"continue with: batch-scoring export {tiny.name} {DAYS[1]} {DAYS[3]}" in ended.stderr
    with dg.DagsterInstance.from_config(str(home)) as instance:
        statuses = sorted(run.status.value for run in instance.get_runs())
    assert statuses == ["CANCELED", "SUCCESS"]
    assert manifest(tiny, DAYS[0]) and not manifest(tiny, DAYS[1])
