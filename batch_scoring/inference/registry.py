"""The model registry in the pipeline's state: the active version, and every version that was active before.

    state/models/<sha256>/   a copy of each bundle that was ever active
    state/model.json         names the active one

Everything downstream scores with the copy, so a bundle folder that is overwritten during a run changes nothing.
"""

from collections.abc import Sequence

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.validation.spec_validation import schema_columns
from batch_scoring.errors import BundleError
from batch_scoring.inference.acceptance.functions import transforms
from batch_scoring.inference.bundle import MANIFEST, Bundle, read_version
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage.state import ActiveModel, State


def ensure_new_version(pipeline: Pipeline, bundle: Bundle) -> None:
    """Ensure that a version names one model only: its name is in every scored row.

    Raises:
        BundleError: another bundle was active under the same version.
    """
    models = State(pipeline.output).models
    for file in models.list():
        sha256, _, name = file.path.partition("/")
        if name == MANIFEST and sha256 != bundle.sha256:
            version = read_version(models.subfolder(sha256))
            if version == bundle.manifest.version:
                raise BundleError(
                    f"{bundle.uri}: version {version} was active before with other content (sha256 "
                    f"{sha256[:12]}…, this one has {bundle.sha256[:12]}…); give the new model a new version"
                )


def ensure_declared_features(pipeline: Pipeline, bundle: Bundle) -> None:
    """Ensure that the spec declares what the bundle needs, and uses no column that the model adds.

    Raises:
        BundleError: the bundle needs a feature that the spec does not name, or names as the other kind; no function
            makes its engineered features, or it was written without the one that makes them; or a column of its scores
            is one of the spec's own.
    """
    spec, manifest = pipeline.spec.features, bundle.manifest
    for kind, needed, named in (
        ("numeric", manifest.numeric, spec.numeric),
        ("categorical", tuple(manifest.categorical), spec.categorical),
        ("text", manifest.text.columns if manifest.text else (), spec.text),
        ("vectors", tuple(manifest.vectors), spec.vectors),
    ):
        if absent := [name for name in needed if name not in named]:
            raise BundleError(
                f"{bundle.uri} needs the {kind} features {', '.join(absent)}, "
                f"which features.{kind} of the spec does not name"
            )
    if manifest.arrays and not spec.encode:
        raise BundleError(
            f"{bundle.uri} needs the inputs {', '.join(manifest.arrays)}; features.encode of the spec names no "
            "function that makes them"
        )
    if manifest.engineered and not spec.transform:
        raise BundleError(
            f"{bundle.uri} needs the engineered features {', '.join(manifest.engineered)}; features.transform of the "
            "spec names no function that makes them"
        )
    own = (pipeline.spec.input.key, *spec.inputs, *pipeline.spec.input.attributes)
    if taken := [name for name in manifest.task.columns if name in own]:
        raise BundleError(
            f"{bundle.uri} adds the column {', '.join(taken)} to the predictions, which the spec uses itself; rename "
            "the spec's own"
        )
    if spec.transform and (columns := schema_columns(pipeline.spec, pipeline.folder)):
        _ensure_columns(bundle, columns, spec.contract)


def _ensure_columns(bundle: Bundle, columns: Sequence[str], schema: str) -> None:
    """Ensure that rows of the schema have what a model of a pipeline with a transform needs."""
    manifest = bundle.manifest
    if absent := [name for name in manifest.features if name not in (*columns, *manifest.engineered)]:
        raise BundleError(
            f"{bundle.uri} needs {', '.join(absent)}, no column of {schema}, and was written without the transform "
            "that makes it: give write_bundle code=ModelCode.of(pipeline)"
        )
    if manifest.engineered:
        reads, _ = transforms.columns_of(manifest, bundle.golden.schema)
        if absent := [name for name in reads.names if name not in columns]:
            raise BundleError(
                f"{bundle.uri}: its transform gets {', '.join(absent)}, no column of {schema}: leave it out of the "
                "golden rows, or add it to the schema"
            )


def activate(pipeline: Pipeline, bundle: Bundle, run: StepContext) -> ActiveModel:
    """Copy the bundle into the state and make it the active model; an active one stays as it is."""
    state = State(pipeline.output)
    before = state.model_or_none()
    _copy(state, bundle)
    if before and before.sha256 == bundle.sha256:
        return before
    active = ActiveModel(
        name=bundle.manifest.name,
        version=bundle.manifest.version,
        sha256=bundle.sha256,
        source=bundle.uri,
        run_id=run.id,
        resolved_at=run.started,
    )
    state.put_model(active)
    run.log(f"model {active.version} is active; before: {before.version if before else 'none'}")
    return active


def _copy(state: State, bundle: Bundle) -> None:
    """Write the files of the bundle's copy that are missing or damaged."""
    folder = state.models.subfolder(bundle.sha256)
    present = {file.path for file in folder.list()}
    for name in sorted(bundle.content, key=lambda name: name == MANIFEST):  # the manifest last: it vouches for the rest
        if name not in present or folder.read(name) != bundle.content[name]:
            folder.put(name, bundle.content[name])
