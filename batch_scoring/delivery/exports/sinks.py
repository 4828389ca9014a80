"""The sink of an export, as its section of the spec describes it."""

import os

from batch_scoring.config.delivery_spec import FileExport, PostgresExport, RedisExport
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.delivery.exports.sink import Sink
from batch_scoring.errors import SinkRefusedError


def sink_of(pipeline: Pipeline, name: str) -> Sink:
    """The sink of an export; the library of its kind is imported now, not with the deployment.

    Raises:
        SinkRefusedError: the environment variable with its address is not set or cannot be read, or the library is not
            installed.
    """
    export = pipeline.spec.exports[name]
    if isinstance(export, FileExport):
        from batch_scoring.delivery.exports.files import FileSink

        is_absolute = export.path.startswith(("/", "s3://"))
        path = export.path if is_absolute else f"{pipeline.data_root.rstrip('/')}/{export.path}"
        return FileSink(path, for_people=export.people)
    address = _address(export.url_from, name)
    try:
        return _server_of(pipeline, name, export, address)
    except SinkRefusedError as error:
        raise SinkRefusedError(f"exports.{name}: {export.url_from}: {error}") from None


def _server_of(pipeline: Pipeline, name: str, export: PostgresExport | RedisExport, address: str) -> Sink:
    if isinstance(export, PostgresExport):
        from batch_scoring.delivery.exports.postgres.sink import PostgresSink

        return PostgresSink(address, export.table, pipeline.name, name, pipeline.spec.input.key)
    from batch_scoring.delivery.exports.redis.sink import RedisSink

    return RedisSink(export, address)


def _address(variable: str, name: str) -> str:
    if address := os.environ.get(variable, "").strip():
        return address
    raise SinkRefusedError(
        f"exports.{name}: the environment variable {variable}, which holds the sink's address, is not set; set it "
        "where the export runs: in the environment of the daemon, in the steps' pods, in the shell of a command"
    )
