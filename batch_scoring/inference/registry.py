"""The model registry in the pipeline's state: the active version, and every version that was active before.

    state/models/<sha256>/   a copy of each bundle that was ever active
    state/model.json         names the active one

Everything downstream scores with the copy, so a bundle folder that is overwritten during a run changes nothing.
"""

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import BundleError
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
    """Ensure that the spec declares every feature that the bundle needs, and uses no column that the model adds.

    Raises:
        BundleError: the bundle needs a feature that the spec does not name, or names as the other kind; or a column of
            its scores is one of the spec's own.
    """
    spec, manifest = pipeline.spec.features, bundle.manifest
    for kind, needed, named in (
        ("numeric", manifest.numeric, spec.numeric),
        ("categorical", tuple(manifest.categorical), spec.categorical),
    ):
        if absent := [name for name in needed if name not in named]:
            raise BundleError(
                f"{bundle.uri} needs the {kind} features {', '.join(absent)}, "
                f"which features.{kind} of the spec does not name"
            )
    own = (pipeline.spec.input.key, *spec.names, *pipeline.spec.input.attributes)
    if taken := [name for name in manifest.task.columns if name in own]:
        raise BundleError(
            f"{bundle.uri} adds the column {', '.join(taken)} to the predictions, which the spec uses itself; rename "
            "the spec's own"
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
