"""The commands of the README as typed, on the embedded data, each in a process of its own."""

import io
import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.cli.backfill import run_days as backfill
from batch_scoring.cli.main import main
from batch_scoring.config.loader import PROJECT, find_pipeline
from batch_scoring.errors import NotPublishedError
from batch_scoring.storage.state import State
from batch_scoring.tables import read_day

BIN = Path(sys.executable).parent
LAST_DAY = "2013-07-14"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data root of the test's own with what the repository embeds."""
    root = tmp_path / "data"
    for name in ("flight_delay", "customer_churn", "support_tickets"):
        for part in ("landing", "models"):
            shutil.copytree(PROJECT / "data" / name / part, root / name / part)
    return root


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A DAGSTER_HOME with the repository's dagster.yaml."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(PROJECT / "dagster.yaml", folder)
    return folder


def command(
    *arguments: str, data: Path, home: Path | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    environment |= {"BATCH_SCORING_DATA": str(data), "OMP_NUM_THREADS": "1"} | (
        {"DAGSTER_HOME": str(home)} if home else {}
    )
    program = [str(BIN / arguments[0]), *arguments[1:]]
    return subprocess.run(program, cwd=cwd or data.parent, env=environment, capture_output=True, text=True, check=False)


def materialize(selection: str, day: str, data: Path, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    return command(
        "dagster",
        "asset",
        "materialize",
        "-m",
        "batch_scoring.definitions",
        "--select",
        selection,
        "--partition",
        day,
        data=data,
        home=home,
    )


def use(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at what a command left, from this process."""
    monkeypatch.setenv("BATCH_SCORING_DATA", str(data))


# backfill


def test_a_backfill_scores_a_range_lists_what_failed_and_lets_the_others_stand(
    data: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = data / "flight_delay/landing/dt=2013-07-02/flights.parquet"
    broken.write_bytes(broken.read_bytes()[:5000])
    done = command("batch-scoring", "backfill", "flight_delay", "2013-07-01", "2013-07-03", data=data, home=home)
    assert done.returncode == 1, done.stderr
    head, first, second, third, *rest = done.stdout.splitlines()
    assert re.split(r"\s{2,}", head) == ["day", "rows in", "scored", "quarantined", "failed checks", "rows/s"]
    for line, day, count in ((first, "2013-07-01", 1), (third, "2013-07-03", 3)):
        cells = re.split(r"\s{2,}", line)
        rows = int(cells[1].replace(",", ""))
        assert cells[0] == day and 900 < rows < 1100
        assert cells[2].replace(",", "") == str(rows) and cells[3:5] == ["0", "0"]
        assert re.fullmatch(r"[\d,]+", cells[5]) and re.fullmatch(rf"{count}/3, \d+ s left", cells[6])
    assert re.split(r"\s{2,}", second)[:6] == ["2013-07-02", "-", "-", "-", "1", "failed"]
    text = "\n".join(rest)
    assert f"predictions: {data}/flight_delay/tables/predictions (a Delta table, partitioned by dt)" in text
    assert "read_day('flight_delay', '2013-07-01')" in text
    (failure,) = [line for line in rest if line.startswith("  2013-07-02")]
    assert "flight_delay/raw_input: input_is_complete" in failure and str(broken) in failure
    assert "1 of 3 days failed:" in text
    use(data, monkeypatch)
    assert all(read_day("flight_delay", day).num_rows > 900 for day in ("2013-07-01", "2013-07-03"))
    with pytest.raises(NotPublishedError):
        read_day("flight_delay", "2013-07-02")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        runs = {r.dagster_run.tags["dagster/partition"]: r.dagster_run.status.value for r in instance.get_run_records()}
        assert runs == {"2013-07-01": "SUCCESS", "2013-07-02": "FAILURE", "2013-07-03": "SUCCESS"}
        key = dg.AssetKey(["flight_delay", "predictions"])
        assert instance.get_materialized_partitions(key) == {"2013-07-01", "2013-07-03"}


def test_a_backfill_of_good_days_exits_with_0_and_leaves_nothing_in_the_working_directory(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(data, monkeypatch)
    monkeypatch.chdir(data.parent)
    assert main(["backfill", "customer_churn", "2024-01-01", "2024-01-01"]) == 0
    answer = capsys.readouterr().out
    assert answer.startswith("DAGSTER_HOME is not set: these runs will not be seen in the UI\n")
    assert "1/1, 0 s left" in answer and "failed:" not in answer
    assert sorted(path.name for path in data.parent.iterdir()) == ["data"]


def test_the_instance_of_the_working_directory_is_used_where_a_dagster_yaml_stands(
    data: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(data, monkeypatch)
    monkeypatch.setenv("DAGSTER_HOME", "")  # the command sets it: it is put back after the test
    monkeypatch.chdir(home)
    assert main(["backfill", "customer_churn", "2024-01-01", "2024-01-01"]) == 0
    assert "DAGSTER_HOME is not set" not in capsys.readouterr().out
    with dg.DagsterInstance.get() as instance:
        assert instance.root_directory == str(home) and len(instance.get_run_records()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            "backfill flight 2013-07-01 2013-07-02",
            "no pipeline 'flight'; known pipelines: customer_churn, flight_delay, support_tickets",
        ),
        ("backfill flight_delay 2013-07-01 2013-7-2", "'[LAST]': '2013-7-2' is not a day; expected YYYY-MM-DD"),
        ("backfill flight_delay yesterday 2013-07-02", "'[FIRST]': 'yesterday' is not a day"),
        ("backfill flight_delay 2013-02-30 2013-07-02", "'2013-02-30' is not a day; expected YYYY-MM-DD"),
        ("backfill flight_delay 2013-07-02 2013-07-01", "2013-07-01 is before 2013-07-02; expected FIRST and LAST"),
        (
            "backfill flight_delay 2012-12-31 2013-01-01",
            "2012-12-31 is not a day of flight_delay; its days are 2013-01-01 (partitions.start in its spec) … 20",
        ),
        ("backfill flight_delay 2013-07-01 2999-01-01", "2999-01-01 is not a day of flight_delay"),
        (
            "backfill flight_delay 2013-07-01",
            "last (or --stale, --failed); for one day: batch-scoring backfill flight_delay 2013-07-01 2013-07-01",
        ),
        ("forecast", "no command 'forecast'; known commands: new, backfill, score"),
        ("", "Usage: batch-scoring [OPTIONS] COMMAND [ARGS]..."),
    ],
)
def test_a_wrong_command_says_what_is_accepted_and_exits_with_2(
    arguments: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    answer = capsys.readouterr()
    assert says in answer.err and answer.out == ""


def test_days_that_are_scored_already_cost_no_commit_and_are_called_unchanged(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(data, monkeypatch)
    monkeypatch.chdir(data)  # no dagster.yaml here: a passing instance
    first, second = io.StringIO(), io.StringIO()
    assert backfill.backfill("flight_delay", date(2013, 7, 12), date(2013, 7, 14), first) == 0
    state = State(find_pipeline("flight_delay").output)
    before = [published_day.table for published_day in state.published_days("predictions")]
    assert len(before) == 3 and "unchanged" not in first.getvalue()
    assert backfill.backfill("flight_delay", date(2013, 7, 12), date(2013, 7, 14), second) == 0
    assert [published_day.table for published_day in state.published_days("predictions")] == before
    assert second.getvalue().count("unchanged") == 3


def test_a_backfill_after_a_promotion_names_the_days_that_stay_stale_and_not_those_that_it_scores(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(data, monkeypatch)
    monkeypatch.chdir(data)
    assert backfill.backfill("flight_delay", date(2013, 7, 12), date(2013, 7, 14), io.StringIO()) == 0
    monkeypatch.setenv("FLIGHT_DELAY_MODEL", "flight_delay/models/v2")
    out = io.StringIO()
    assert backfill.backfill("flight_delay", date(2013, 7, 12), date(2013, 7, 13), out) == 0
    lines = out.getvalue().splitlines()
    assert [re.split(r"\s{2,}", line)[4] for line in lines if line.startswith("2013-07")] == ["0", "0"]
    at = lines.index("checks that failed without stopping a day:")
    assert lines[at + 1 :] == [
        "  2013-07-13  flight_delay/model days_are_current: stale days: 1 (model: 2013-07-14); "
        "run: batch-scoring backfill flight_delay 2013-07-14 2013-07-14"
    ]
    assert "failed:" not in lines


# dagster's own command


def test_dagster_asset_materialize_works_as_typed_without_dagster_home_and_then_each_asset_alone(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = materialize("+flight_delay/predictions", "2013-07-01", data)
    assert done.returncode == 0, done.stderr[-2000:]
    use(data, monkeypatch)
    scored = read_day("flight_delay", "2013-07-01")
    assert scored.num_rows > 900 and set(scored["model_version"].to_pylist()) == {"v1"}
    shutil.rmtree(data / "flight_delay/landing/dt=2013-07-01")
    alone = materialize("flight_delay/predictions", "2013-07-01", data)
    assert alone.returncode == 0, alone.stderr[-2000:]
    assert "is scored already" in alone.stderr + alone.stdout


def test_dagster_asset_materialize_keeps_its_run_in_dagster_home(
    data: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = materialize("+customer_churn/predictions", "2024-01-02", data, home)
    assert done.returncode == 0, done.stderr[-2000:]
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        for name in ("raw_input", "validated_features", "predictions"):
            assert instance.get_materialized_partitions(dg.AssetKey(["customer_churn", name])) == {"2024-01-02"}
        assert instance.get_latest_materialization_event(dg.AssetKey(["customer_churn", "model"]))


# the second pipeline


def test_the_embedded_days_of_customers_are_scored_from_csv(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(data, monkeypatch)
    monkeypatch.chdir(data)
    out = io.StringIO()
    assert backfill.backfill("customer_churn", date(2024, 1, 1), date(2024, 1, 2), out) == 0, out.getvalue()
    pipeline = find_pipeline("customer_churn")
    state = State(pipeline.output)
    for day in ("2024-01-01", "2024-01-02"):
        lines = sum(1 for _ in (data / f"customer_churn/landing/dt={day}/customers.csv").open()) - 1
        features, scored = state.published_day("validated_features", day), state.published_day("predictions", day)
        assert features is not None and scored is not None
        assert features.rows_in == lines == features.rows_quarantined + scored.rows_quarantined + scored.rows
        rows = read_day(pipeline, day)
        assert rows.num_rows == scored.rows > 0
        assert rows.column_names == [
            "id",
            "prediction",
            "prediction_proba",
            "prob_class_0",
            "prob_class_1",
            "model_version",
            "scored_at",
            "dt",
        ]
        assert read_day(pipeline, day, "quarantine").num_rows == features.rows_quarantined + scored.rows_quarantined
