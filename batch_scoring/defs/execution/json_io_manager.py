"""What the steps of one asset tell each other, kept in the pipeline's storage: small JSON documents, never rows.

    state/steps/<run>/<step>.<output>[.<part>].json

Dagster's own default pickles into a folder of the machine, which the next step's pod does not have.
"""

import json

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import StateError
from batch_scoring.storage.folders import Folder
from batch_scoring.storage.state import REFERENCES

LARGEST = 10 * 1024**2
"""Bytes of a document: whoever has more to tell writes it to the state, or to a table."""


class References(dg.IOManager):
    """Keeps what a step yields as JSON, for another step of the same run or of one that goes on with it."""

    def __init__(self, folder: Folder) -> None:
        """`folder`: where the documents are."""
        self._folder = folder

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write a document.

        Raises:
            TypeError: it holds something else than numbers, text, lists and dicts of them.
            ValueError: it is too large to be a reference.
        """
        try:
            content = json.dumps(obj, indent=1, allow_nan=False).encode()
        except (TypeError, ValueError) as error:  # a ValueError is about NaN, or about a circle
            raise TypeError(f"{context.step_key} tells the next step something that is no JSON: {error}") from None
        if len(content) > LARGEST:
            raise ValueError(f"{context.step_key} tells the next step {len(content)} bytes; expected references only")
        self._folder.put(_path(context), content)

    def load_input(self, context: dg.InputContext) -> object:
        """Read a document.

        Raises:
            StateError: it is gone, or damaged.
        """
        assert context.upstream_output is not None  # an input that comes from elsewhere has another manager
        path = _path(context.upstream_output)
        try:
            return json.loads(self._folder.read(path))
        except FileNotFoundError:
            raise StateError(f"{self._folder.uri}/{path} is gone; run the whole day again") from None
        except ValueError as error:
            raise StateError(f"{self._folder.uri}/{path} is damaged ({error}); run the whole day again") from None


def references(pipeline: Pipeline) -> References:
    """Those of a pipeline's steps."""
    return References(pipeline.output.subfolder(REFERENCES))


def _path(output: dg.OutputContext) -> str:
    run, step, *name = output.get_identifier()
    return f"{run}/{step}.{'.'.join(name)}.json"
