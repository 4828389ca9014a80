"""IO manager between the steps of one asset: small JSON documents in the pipeline's storage, never rows.

    state/steps/<run>/<step>.<output>[.<part>].json

Dagster's default manager pickles into a local folder, which the next step's pod does not have.
"""

import json

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import StateError
from batch_scoring.storage.folders.folder import Folder
from batch_scoring.storage.state import REFERENCES

LARGEST = 10 * 1024**2
"""Bytes of a document. Anything larger belongs in the state or in a table."""


class References(dg.IOManager):
    """Stores a step's outputs as JSON for another step of the same run, or of a run that resumes it."""

    def __init__(self, folder: Folder) -> None:
        """Store documents in a folder."""
        self._folder = folder

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write a document.

        Raises:
            TypeError: the output is not JSON.
            ValueError: the output is too large to be a reference.
        """
        try:
            content = json.dumps(obj, indent=1, allow_nan=False).encode()
        except (TypeError, ValueError) as error:  # ValueError: NaN, or a circular reference
            raise TypeError(f"{context.step_key} has an output that is not JSON: {error}") from None
        if len(content) > LARGEST:
            raise ValueError(f"{context.step_key} has an output of {len(content)} bytes; expected references only")
        self._folder.put(_path(context), content)

    def load_input(self, context: dg.InputContext) -> object:
        """Read a document.

        Raises:
            StateError: the document is gone or damaged.
        """
        assert context.upstream_output is not None  # inputs from other assets have another manager
        path = _path(context.upstream_output)
        try:
            return json.loads(self._folder.read(path))
        except FileNotFoundError:
            raise StateError(f"{self._folder.uri}/{path} is gone; run the whole day again") from None
        except ValueError as error:
            raise StateError(f"{self._folder.uri}/{path} is damaged ({error}); run the whole day again") from None


def references(pipeline: Pipeline) -> References:
    """The IO manager of a pipeline's steps."""
    return References(pipeline.output.subfolder(REFERENCES))


def _path(output: dg.OutputContext) -> str:
    run, step, *name = output.get_identifier()
    return f"{run}/{step}.{'.'.join(name)}.json"
