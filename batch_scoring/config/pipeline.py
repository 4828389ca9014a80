"""A pipeline: its spec, the folder of its code and the root of its data.

`loader.py` finds the pipelines.
"""

import functools
import hashlib
import importlib
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from batch_scoring.config import code_digest
from batch_scoring.config.spec import PipelineSpec
from batch_scoring.errors import CodeError
from batch_scoring.runtime import gc_freeze
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.folders.folder import Folder


@dataclass(frozen=True)
class Pipeline:
    """A spec, the package that its code is in, and the root of its relative paths."""

    spec: PipelineSpec
    folder: Path
    package: str
    data_root: str

    @property
    def name(self) -> str:
        """The pipeline's name: prefix of its assets, jobs and folders."""
        return self.spec.name

    @property
    def landing(self) -> Folder:
        """The folder above the days' input files."""
        return locate(self.spec.input.landing or f"{self.name}/landing", self.data_root)

    @property
    def output(self) -> Folder:
        """The folder of tables, state and reports."""
        return locate(self.spec.output or self.name, self.data_root)

    @property
    def bundle(self) -> Folder:
        """The bundle that the spec names: the model that the next run activates."""
        return locate(self.spec.model.bundle, self.data_root)

    def load(self, reference: str) -> Any:  # noqa: ANN401  (a class of the user's)
        """Import the object that a `module:attribute` reference in the spec names.

        Raises:
            CodeError: the module cannot be imported, or has no such attribute.
        """
        module, attribute = reference.split(":")
        try:
            with gc_freeze.imports():
                return getattr(importlib.import_module(f"{self.package}.{module}"), attribute)
        except Exception as error:  # whatever a user's module may raise
            summary = f"{type(error).__name__}: {' '.join(str(error).split())}{_line_of(error, self.folder)}"
            raise CodeError(f"{self.name}: {reference} cannot be loaded from {self.folder}: {summary}") from error

    @functools.cached_property
    def features_code(self) -> str:
        """Digest of all code and settings that determine which rows are accepted, and their values."""
        spec = self.spec
        settings = [spec.input.key, spec.input.csv, *self._columns, spec.scoring.rows_per_shard]
        if spec.input.attributes:  # without them, digests stay what they were before there were any
            settings.append(spec.input.attributes)
        if spec.features.transform or spec.features.encode:  # which may read any column
            settings.append("all columns")
        return self._digest("features 3", self._source(spec.features.contract), settings)

    @functools.cached_property
    def scoring_code(self) -> str:
        """Digest of all code and settings that determine a score, besides features and weights."""
        references = [self.spec.model.network, *self._engineering]
        source = b"".join(self._source(reference) for reference in references)
        return self._digest("scoring 4", source, [self.spec.input.key, *self._columns, *self._engineering])

    @functools.cached_property
    def decisions_code(self) -> str:
        """Digest of all code and settings that determine what is decided about a scored row; empty if nothing is."""
        decisions = self.spec.decisions
        if decisions is None:
            return ""
        source = self._source(decisions.function) if decisions.function else b""
        settings = [self.name, self.spec.input.key, self.spec.input.attributes, decisions]
        return self._digest("decisions 1", source, settings)

    @property
    def _columns(self) -> list[Any]:
        features = self.spec.features
        columns: list[Any] = [features.contract, features.numeric, features.categorical]
        others = {"text": features.text, "vectors": features.vectors}
        return [*columns, *(pair for pair in others.items() if pair[1])]

    @property
    def _engineering(self) -> list[str]:
        """The code that makes inputs and checks them; without any, digests stay what they were before there was."""
        features = self.spec.features
        return [reference for reference in (features.transform, features.engineered, features.encode) if reference]

    def _source(self, reference: str) -> bytes:
        return code_digest.source(self.folder, self.package, reference.split(":")[0])

    @staticmethod
    def _digest(engine: str, source: bytes, settings: list[Any]) -> str:
        """Digest of code and settings. `engine`: a version, raised by hand when our own code changes results."""
        hasher = hashlib.sha256(engine.encode())
        hasher.update(source)
        for setting in settings:
            hasher.update((setting.model_dump_json() if isinstance(setting, BaseModel) else repr(setting)).encode())
        return hasher.hexdigest()[:32]


def locate(location: str, root: str) -> Folder:
    """The folder of a location in a spec; a relative one is below the data root."""
    if location.startswith(("/", "s3://")):
        return open_folder(location)
    return open_folder(f"{root.rstrip('/')}/{location}")


def _line_of(error: BaseException, folder: Path) -> str:
    """The line of a pipeline's own code that raised an error on import, as the end of a message."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({Path(error.filename).name} line {error.lineno})"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == folder]
    return f" ({Path(own[-1].filename).name} line {own[-1].lineno})" if own else ""
