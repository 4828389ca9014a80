"""The sink of an export, as its section of the spec describes it."""

import os

from batch_scoring.config.delivery_spec import FileExport, PostgresExport
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.delivery.exports.sink import Sink
from batch_scoring.errors import SinkRefusedError


def sink_of(pipeline: Pipeline, name: str) -> Sink:
    """The sink of an export; the library of its kind is imported now, not with the deployment.

    Raises:
        SinkRefusedError: the environment variable with its address is not set, or the library is not installed.
    """
    export = pipeline.spec.exports[name]
    if isinstance(export, FileExport):
        from batch_scoring.delivery.exports.files import FileSink

        is_absolute = export.path.startswith(("/", "s3://"))
        path = export.path if is_absolute else f"{pipeline.data_root.rstrip('/')}/{export.path}"
        return FileSink(path, for_people=export.people)
    if isinstance(export, PostgresExport):
        from batch_scoring.delivery.exports.postgres.sink import PostgresSink

        return PostgresSink(_address(export.url_from, name), export.table, pipeline.name, name, pipeline.spec.input.key)
    from batch_scoring.delivery.exports.redis.sink import RedisSink

    return RedisSink(export, _address(export.url_from, name))


def _address(variable: str, name: str) -> str:
    if address := os.environ.get(variable, "").strip():
        return address
    raise SinkRefusedError(
        f"exports.{name}: the environment variable {variable}, which holds the sink's address, is not set; set it "
        "where the export runs: in the environment of the daemon, in the steps' pods, in the shell of a command"
    )
