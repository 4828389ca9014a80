"""The public shape, literally: what users, dashboards and other tools hold on to. Change it knowingly, here too."""

import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from batch_scoring.cli.main import main
from batch_scoring.config.loader import PROJECT, load_pipelines
from batch_scoring.daily.tables import TABLES
from batch_scoring.definitions import defs
from batch_scoring_tests.decided import customers, with_decisions
from batch_scoring_tests.tiny import DAY, TinyProject

PIPELINES = {
    "customer_churn": ("2024-01-01", "UTC"),
    "flight_delay": ("2013-01-01", "America/New_York"),
    "support_tickets": ("2025-03-01", "Europe/Berlin"),
}

ASSETS = {
    "raw_input": {"upstream": set(), "partitions": dg.DailyPartitionsDefinition},
    "validated_features": {"upstream": {"raw_input"}, "partitions": dg.DailyPartitionsDefinition},
    "model": {"upstream": set(), "partitions": type(None)},
    "predictions": {
        "upstream": {"raw_input", "validated_features", "model"},
        "partitions": dg.DailyPartitionsDefinition,
    },
    "decisions": {"upstream": {"predictions"}, "partitions": dg.DailyPartitionsDefinition},
    "report": {"upstream": {"predictions"}, "partitions": dg.MonthlyPartitionsDefinition},
    "retention": {"upstream": set(), "partitions": type(None)},
}

EXPORTS = {"customer_churn": "export_calls", "flight_delay": "export_standby", "support_tickets": "export_routes"}
"""What each pipeline exports: its decisions, to a file."""

JOBS = {
    "score": {"raw_input", "validated_features", "model", "predictions", "decisions"},
    "report": {"report"},
    "retain": {"retention"},
}
"""By their names' first word: what they run."""

SCHEDULES = {
    "score_customer_churn_on_schedule": ("score_customer_churn", "0 6 * * *", "UTC"),
    "score_flight_delay_on_schedule": ("score_flight_delay", "0 6 * * *", "America/New_York"),
    "score_support_tickets_on_schedule": ("score_support_tickets", "0 6 * * *", "Europe/Berlin"),
    "report_customer_churn_on_schedule": ("report_customer_churn", "45 7 * * *", "UTC"),
    "report_flight_delay_on_schedule": ("report_flight_delay", "45 7 * * *", "America/New_York"),
    "report_support_tickets_on_schedule": ("report_support_tickets", "45 7 * * *", "Europe/Berlin"),
    "retain_customer_churn_on_schedule": ("retain_customer_churn", "45 11 * * *", "UTC"),
    "retain_flight_delay_on_schedule": ("retain_flight_delay", "45 11 * * *", "America/New_York"),
    "retain_support_tickets_on_schedule": ("retain_support_tickets", "45 11 * * *", "Europe/Berlin"),
}
"""Job, cron and its time zone."""

CHECKS = {
    "raw_input": {"input_is_present": "blocks", "input_is_complete": "blocks", "row_count_is_usual": "warns"},
    "validated_features": {
        "rows_are_conserved": "blocks",
        "keys_are_unique": "blocks",
        "some_rows_are_accepted": "blocks",
        "quarantine_is_small": "warns",
        "categories_are_known": "warns",
        "categories_are_present": "warns",
        "features_match_reference": "warns",
    },
    "model": {
        "bundle_is_intact": "blocks",
        "golden_rows_agree": "blocks",
        "metrics_meet_threshold": "warns",
        "days_are_current": "warns",
    },
    "predictions": {
        "rows_are_conserved": "blocks",
        "quarantine_is_small": "warns",
        "scores_are_probabilities": "blocks",
        "confidence_is_usual": "warns",
        "classes_are_balanced": "warns",
        "quantiles_are_ordered": "warns",
        "scores_vary": "warns",
        "cost_is_usual": "warns",
        "predictions_match_reference": "warns",
    },
}

DECISIONS = {
    "upstream": {"predictions"},
    "checks": {
        "every_row_is_decided": "blocks",
        "caps_hold": "blocks",
        "reasons_are_known": "blocks",
        "actions_are_usual": "warns",
        "arms_are_balanced": "warns",
    },
    "columns": {
        "id": "string",
        "action": "string",
        "reason": "string",
        "arm": "string",
        "rank": "int32",
        "score": "double",
        "why": "string",
        "model_version": "string",
        "decided_at": "timestamp[us, tz=UTC]",
        "dt": "date32[day]",
    },
}
"""What a section `decisions` adds to a pipeline."""

COLUMNS = {
    "predictions": {
        "id": "string",
        "prediction": "int64",
        "prediction_proba": "float",
        "prob_class_0": "float",
        "prob_class_1": "float",
        "model_version": "string",
        "scored_at": "timestamp[us, tz=UTC]",
        "dt": "date32[day]",
    },
    "validated_features": {
        "id": "string",
        "x": "double",
        "y": "double",
        "n": "int64",
        "c": "string",
        "source_file": "string",
        "row_number": "int64",
        "dt": "date32[day]",
    },
    "quarantine": {
        "id": "string",
        "rule": "string",
        "column": "string",
        "value": "string",
        "source_file": "string",
        "row_number": "int64",
        "raw": "string",
        "dt": "date32[day]",
        "stage": "string",
    },
}

PARTITIONED_BY = {"predictions": ["dt"], "validated_features": ["dt"], "quarantine": ["dt", "stage"]}

COMMANDS = [
    "new",
    "backfill",
    "score",
    "decide",
    "export",
    "submit",
    "status",
    "wait",
    "failures",
    "doctor",
    "metrics",
    "cost",
    "calibrate",
    "checkpoint",
    "retention",
    "test-alert",
    "repair-instance",
]

NEVER_AT_LOAD = [
    "torch",
    "evidently",
    "pandera",
    "pandas",
    "boto3",
    "botocore",
    "mlflow",
    "kubernetes",
    "dagster_aws",
    "dagster_k8s",
    "polars",
    "safetensors",
    "scipy",
    "tokenizers",
    "plotly",
    "apprise",
    "adbc_driver_manager",
    "adbc_driver_postgresql",
    "prometheus_client",
    "redis",
]

GRAPH = defs.resolve_asset_graph()


def test_the_pipelines_are_these() -> None:
    assert {p.name: (str(p.spec.partitions.start), p.spec.partitions.timezone) for p in load_pipelines()} == PIPELINES


def test_the_asset_keys_and_what_they_depend_on_are_these() -> None:
    expected = {
        (pipeline, name): ({(pipeline, other) for other in shape["upstream"]}, shape["partitions"])  # type: ignore[attr-defined]
        for pipeline in PIPELINES
        for name, shape in ASSETS.items()
    } | {
        (pipeline, name): ({(pipeline, "decisions")}, dg.DailyPartitionsDefinition)
        for pipeline, name in EXPORTS.items()
    }
    found = {
        tuple(key.path): ({tuple(parent.path) for parent in asset.parent_keys}, type(asset.partitions_def))
        for key in GRAPH.get_all_asset_keys()
        if (asset := GRAPH.get(key))
    }
    assert found == expected


def test_the_checks_are_these_and_block_or_warn() -> None:
    found: dict[str, dict[str, dict[str, str]]] = {}
    for key in GRAPH.asset_check_keys:
        pipeline, asset = key.asset_key.path
        kind = "blocks" if GRAPH.get(key).blocking else "warns"
        found.setdefault(pipeline, {}).setdefault(asset, {})[key.name] = kind
    of_exports = {"export_is_whole": "warns", "exports_are_current": "warns"}
    assert found == {name: CHECKS | {"decisions": DECISIONS["checks"], EXPORTS[name]: of_exports} for name in PIPELINES}


def test_every_check_has_the_days_of_its_asset() -> None:
    for key in GRAPH.asset_check_keys:
        days = GRAPH.get(key).partitions_def
        if key.asset_key.path[-1] == "model":
            assert days is None, f"{key}: `dagster definitions validate` would refuse days that its asset has not"
            continue
        assert days is not None, f"{key}: its results would be stored under no day"
        assert (days.get_first_partition_key(), days.timezone) == PIPELINES[key.asset_key.path[0]]  # type: ignore[attr-defined]


def test_a_pipeline_has_a_job_for_a_day_and_one_for_the_page_of_a_month() -> None:
    jobs = {job.name: job for job in defs.resolve_all_job_defs() if not job.name.startswith("__")}
    assert {name: {tuple(key.path) for key in job.asset_layer.executable_asset_keys} for name, job in jobs.items()} == {
        f"{job}_{pipeline}": {(pipeline, name) for name in JOBS[job]} for job in JOBS for pipeline in PIPELINES
    } | {f"export_{pipeline}": {(pipeline, name)} for pipeline, name in EXPORTS.items()}
    for pipeline in PIPELINES:
        assert isinstance(jobs[f"score_{pipeline}"].partitions_def, dg.DailyPartitionsDefinition)
        assert isinstance(jobs[f"report_{pipeline}"].partitions_def, dg.MonthlyPartitionsDefinition)


def test_the_sensors_are_these_and_run_from_the_start() -> None:
    expected = {"dead_runs": [], "alerts": [], **{f"{name}_uploads": [f"score_{name}"] for name in PIPELINES}}
    expected |= {f"{name}_exports": [f"export_{name}"] for name in PIPELINES}
    assert {sensor.name: [t.job_name for t in sensor.targets] for sensor in defs.sensors or []} == expected
    assert {sensor.default_status for sensor in defs.sensors or []} == {dg.DefaultSensorStatus.RUNNING}


def test_the_schedules_are_these_and_are_stopped() -> None:
    schedules = [schedule for schedule in defs.schedules or [] if isinstance(schedule, dg.ScheduleDefinition)]
    found = {s.name: (s.job_name, s.cron_schedule, s.execution_timezone) for s in schedules}
    assert found == SCHEDULES
    assert {schedule.default_status for schedule in schedules} == {dg.DefaultScheduleStatus.STOPPED}


def test_today_is_a_day_already() -> None:
    """Its files may land before it is over."""
    days = GRAPH.get(dg.AssetKey(["flight_delay", "raw_input"])).partitions_def
    assert isinstance(days, dg.DailyPartitionsDefinition) and days.end_offset == 1


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    tiny = TinyProject(tmp_path_factory.mktemp("scored"))
    rows = tiny.rows(64)
    tiny.land(DAY, rows.set_column(3, "n", pa.array([-1] + [1] * 63)))
    tiny.run()
    return tiny


@pytest.mark.parametrize("table", COLUMNS)
def test_the_columns_of_the_tables_are_these(scored: TinyProject, table: str) -> None:
    delta = TABLES[table](scored.pipeline).load()
    assert delta is not None
    assert {field.name: str(field.type) for field in pa.schema(delta.schema().to_arrow())} == COLUMNS[table]
    assert delta.metadata().partition_columns == PARTITIONED_BY[table]


def test_files_stand_where_the_design_says(scored: TinyProject) -> None:
    root = Path(scored.pipeline.output.uri)
    folders = {
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir() and path.name != "_delta_log"
    }
    sha256 = scored.state.model().sha256
    assert {folder for folder in folders if not folder.endswith("_delta_log")} == {
        "landing",
        f"landing/dt={DAY}",
        "models",
        "models/v1",
        "state",
        f"state/dt={DAY}",
        f"state/dt={DAY}/checks",
        "state/models",
        f"state/models/{sha256}",
        "tables",
        "tables/validated_features",
        f"tables/validated_features/dt={DAY}",
        "tables/predictions",
        f"tables/predictions/dt={DAY}",
        "tables/quarantine",
        f"tables/quarantine/dt={DAY}",
        f"tables/quarantine/dt={DAY}/stage=rule",
    }
    documents = {path.relative_to(root).as_posix() for path in (root / "state").rglob("*.json")}
    assert documents == {
        "state/model.json",
        f"state/models/{sha256}/bundle.json",
        f"state/dt={DAY}/input.json",
        f"state/dt={DAY}/validated_features.json",
        f"state/dt={DAY}/predictions.json",
        *(f"state/dt={DAY}/checks/{asset}.json" for asset in ("raw_input", "validated_features", "predictions")),
        *(f"state/dt={DAY}/checks/{side}_drift.json" for side in ("features", "predictions")),
    }
    assert not [path for path in root.rglob("*.tmp")]


def test_decisions_add_an_asset_to_the_daily_job_and_nothing_else(tmp_path: Path) -> None:
    tiny = TinyProject(tmp_path)
    before = tiny.definitions.resolve_asset_graph()
    with_decisions(tiny)
    after, key = tiny.definitions.resolve_asset_graph(), dg.AssetKey([tiny.name, "decisions"])
    assert after.get_all_asset_keys() - before.get_all_asset_keys() == {key}
    assert {parent.path[-1] for parent in after.get(key).parent_keys} == DECISIONS["upstream"]
    assert isinstance(after.get(key).partitions_def, dg.DailyPartitionsDefinition)
    added = after.asset_check_keys - before.asset_check_keys
    kinds = {check.name: "blocks" if after.get(check).blocking else "warns" for check in added}
    assert kinds == DECISIONS["checks"] and {check.asset_key for check in added} == {key}
    assert all(after.get(check).partitions_def for check in added)
    jobs = {job.name: job for job in tiny.definitions.resolve_all_job_defs() if not job.name.startswith("__")}
    assert jobs.keys() == {f"{job}_{tiny.name}" for job in JOBS}
    assets = {path.path[-1] for path in jobs[f"score_{tiny.name}"].asset_layer.executable_asset_keys}
    assert assets == JOBS["score"] | {"decisions"}
    tiny.land(DAY, customers(tiny, 30))
    tiny.run()
    delta = TABLES["decisions"](tiny.pipeline).load()
    assert delta is not None
    fields = pa.schema(delta.schema().to_arrow())
    assert {field.name: str(field.type) for field in fields} == DECISIONS["columns"]
    asset = after.get(key)
    described = [column.name for column in asset.metadata["dagster/column_schema"].columns]
    assert described == [*DECISIONS["columns"]]


def test_commits_carry_these_names(scored: TinyProject) -> None:
    common = {"run_id", "input_fingerprint", "code_version", "rows_in", "rows_scored", "rows_quarantined"}
    for table, names in (
        ("predictions", common | {"model_version", "model_sha256"}),
        ("validated_features", common),
        ("quarantine", common),
    ):
        delta = TABLES[table](scored.pipeline).load()
        assert delta is not None
        assert names <= delta.history(1)[0].keys(), table


def test_the_command_has_these_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out.partition("Commands:\n")[2]
    assert re.findall(r"^  ([\w-]+)", overview, re.MULTILINE) == COMMANDS


def test_loading_the_code_location_imports_nothing_heavy() -> None:
    """Each costs every process of every step 0.5 to 4 seconds."""
    asked = f"import sys, batch_scoring.definitions; print(*[m for m in {NEVER_AT_LOAD} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", asked], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_validation_of_the_deployment_ends_with_0() -> None:
    command = [
        str(Path(sys.executable).parent / "dagster"),
        "definitions",
        "validate",
        "-m",
        "batch_scoring.definitions",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_no_word_of_a_description_is_taken_for_markup() -> None:
    """The UI shows descriptions as Markdown, in which <name> is an element, and not shown."""
    repository = defs.get_repository_def()
    specs = [spec for asset in repository.assets_defs_by_key.values() for spec in asset.specs]
    schemas = [spec.metadata["dagster/column_schema"] for spec in specs if "dagster/column_schema" in spec.metadata]
    columns = [column for schema in schemas for column in schema.columns]
    checks = [spec for asset in repository.assets_defs_by_key.values() for spec in asset.check_specs]
    started = [*repository.sensor_defs, *repository.schedule_defs, *repository.get_all_jobs()]
    texts = [one.description or "" for one in (*specs, *columns, *checks, *started)]
    assert len(columns) > 20 and len(checks) > 20
    assert [text for text in texts if re.search(r"<\w", re.sub("`[^`]*`", "", text))] == []
