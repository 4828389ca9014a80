"""A tiny pipeline that exports its days to files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from batch_scoring.config.delivery_spec import AnyExport
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs.sensors import exports_sensor
from batch_scoring.delivery.exports.files import FileSink, Manifest
from batch_scoring_tests.tiny import DAY, TinyProject

NAME = "list"


def with_export(tiny: TinyProject, name: str = NAME, **fields: Any) -> TinyProject:  # noqa: ANN401
    """Add an export to Parquet files, or another one."""
    export = {"to": "file", "path": f"exports/{name}_{{day}}.parquet"} | fields
    export = {field: value for field, value in export.items() if value is not None}
    if export.get("of") == "decisions":
        tiny.spec.setdefault("decisions", {"actions": {"call": {}}})
    tiny.spec.setdefault("exports", {})[name] = export
    tiny.write_spec()
    return tiny


def scored(tiny: TinyProject, *days: str, rows: int = 12) -> None:
    """Land and score days."""
    for day in days or (DAY,):
        tiny.land(day, tiny.rows(rows), "a.parquet")
        assert tiny.run(day).success


def scored_but_not_decided(tiny: TinyProject) -> None:
    """Land and score a day whose decisions are still to come."""
    spec = {**tiny.spec}
    del tiny.spec["decisions"], tiny.spec["exports"]
    tiny.write_spec()
    scored(tiny)
    tiny.spec = spec
    tiny.write_spec()


def sink_of(tiny: TinyProject, name: str = NAME) -> FileSink:
    return FileSink(f"{tiny.pipeline.data_root}/exports/{name}_{{day}}.parquet")


def manifest(tiny: TinyProject, day: str = DAY, name: str = NAME) -> Manifest | None:
    """The manifest of a day, None if there is none."""
    file = Path(tiny.pipeline.data_root, "exports", f"{name}_{day}.manifest.json")
    return Manifest.model_validate_json(file.read_text()) if file.exists() else None


def exported(tiny: TinyProject, day: str = DAY, name: str = NAME) -> pa.Table:
    """The rows of the valid file of a day."""
    valid = manifest(tiny, day, name)
    assert valid is not None, f"{name} of {day} is not exported"
    return pq.read_table(Path(tiny.pipeline.data_root, "exports", valid.file))


def break_sink(tiny: TinyProject) -> None:
    """A file where the exports' folder should be: the sink is down."""
    folder = Path(tiny.pipeline.data_root, "exports")
    if folder.is_dir():
        folder.rename(folder.with_name("exports_before"))
    folder.write_text("in the way")


def mend_sink(tiny: TinyProject) -> None:
    """The sink is back, with what it showed before."""
    folder = Path(tiny.pipeline.data_root, "exports")
    folder.unlink()
    if (before := folder.with_name("exports_before")).is_dir():
        before.rename(folder)


def run_exports(
    tiny: TinyProject,
    instance: dg.DagsterInstance | None = None,
    *names: str,
    day: str = DAY,
    tags: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    """Run the job of the exports, or some of them."""
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    return tiny.definitions.resolve_job_def(f"export_{tiny.name}").execute_in_process(
        partition_key=day,
        instance=instance,
        run_config={**quiet, **(config or {})},
        asset_selection=[dg.AssetKey([tiny.name, f"export_{name}"]) for name in names] or None,
        tags=dict(tags or {}),
        raise_on_error=False,
    )


def tick(tiny: TinyProject, instance: dg.DagsterInstance) -> tuple[Sequence[dg.RunRequest], str]:
    """What the sensor asks for, and why for nothing."""
    result = exports_sensor(tiny.pipeline)(dg.build_sensor_context(instance))
    assert isinstance(result, dg.SensorResult)
    said = result.skip_reason.skip_message or "" if isinstance(result.skip_reason, dg.SkipReason) else ""
    return result.run_requests or [], said


def tick_and_run(tiny: TinyProject, instance: dg.DagsterInstance) -> list[str]:
    """Let the sensor ask, and run what it asks for: how each run ended."""
    requests, _ = tick(tiny, instance)
    ends = []
    for request in requests:
        names = [key.path[-1].removeprefix("export_") for key in request.asset_selection or ()]
        assert request.partition_key
        result = run_exports(tiny, instance, *names, day=request.partition_key, tags=request.tags)
        ends.append(f"{names[0]} {request.partition_key} {'succeeded' if result.success else 'failed'}")
    return ends


def unchecked(tiny: TinyProject, name: str = NAME, **fields: Any) -> Pipeline:  # noqa: ANN401
    """The pipeline with an export that the validation of its spec may refuse."""
    export = {"to": "file", "path": f"exports/{name}_{{day}}.parquet"} | fields
    export = {field: value for field, value in export.items() if value is not None}
    exports = {name: TypeAdapter(AnyExport).validate_python(export)}
    return replace(tiny.pipeline, spec=tiny.pipeline.spec.model_copy(update={"exports": exports}))


def refusing(tiny: TinyProject, name: str = NAME) -> TinyProject:
    """Add an export whose sink has no address: it is refused."""
    tiny.spec.get("exports", {}).pop(name, None)
    return with_export(tiny, name, path=None, to="postgres", url_from="NOT_SET", table=f"scores_{name}")
