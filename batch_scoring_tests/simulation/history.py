"""Histories: sequential and concurrent runs of a day, with disturbances, after which the day must become up to date.

The runs are the assets' own functions, called as Dagster calls them. What is expensive and not part of the protocol is
replaced: pandera (`TinyContract`), torch (`TinyScorer`) and, in memory, Parquet.
"""

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
from deltalake.exceptions import DeltaError

from batch_scoring.config import pipeline
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import PipelineSpec
from batch_scoring.daily import score as scored_day
from batch_scoring.daily import stream, validate
from batch_scoring.defs import step_run
from batch_scoring.defs.assets import model, predictions, raw_input, validated_features
from batch_scoring.errors import PublicationError, StateError, SupersededError, UnreadableFileError
from batch_scoring.inference.heads.classification import Classification
from batch_scoring.inference.inputs.encoded import FailedRow
from batch_scoring.inference.manifest import Manifest
from batch_scoring.inference.scorer import ScoredBatch
from batch_scoring.ingest.schema.contract import Rejections, ValidationResult
from batch_scoring.monitoring.checks import feature_checks, model_checks, prediction_checks
from batch_scoring.monitoring.finding import Finding
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage import delta, shards
from batch_scoring.storage.folders.folder import Folder
from batch_scoring.storage.state import ActiveModel
from batch_scoring_tests.simulation import memory, real
from batch_scoring_tests.simulation.world import DAY, MODELS, NAMES, POISON, REJECTED, Habits, Task, World

HONEST_ERRORS = (SupersededError, StateError, PublicationError, dg.Failure, DeltaError, OSError, UnreadableFileError)
"""What a run may end with when others disturb it."""

RUNS_TO_SETTLE = 3
ASSETS = ("raw_input", "validated_features", "model", "predictions")

Substitutes = Sequence[tuple[object, str, Any]]


class TinyContract:
    """Stands for `contract.Contract`: a row's own `fate` says whether it is accepted."""

    key = "id"
    arrow_schema = pa.schema([("id", pa.string()), ("x", pa.int64()), ("fate", pa.int64())])
    columns = arrow_schema.names
    inputs, categorical = ("x", "fate"), ()

    def __init__(self, pipeline: Pipeline) -> None:
        pass

    def unexpected(self, schema: pa.Schema, where: str, *, is_text: bool) -> list[str]:
        return []

    def validate(self, batch: pa.RecordBatch, *, is_text: bool) -> ValidationResult:
        found, fates = Rejections(batch.num_rows), batch.column("fate")
        found.add("rule", "fate_is_good", "fate", np.flatnonzero(fates.to_numpy() == REJECTED), fates)
        accepted = batch.take(pa.array(found.others)) if len(found) else batch
        return ValidationResult(accepted, found.others, found)


class TinyScorer:
    """Stands for `scoring.Scorer`: the prediction is x; a row with the model's own poison has no score."""

    device, batch_rows, why_eager, runs_side_by_side = "cpu", 64, "", True
    pass_size = "64 rows"
    columns = ("x", "fate")

    def __init__(self, loaded: ActiveModel, *, device: str, batch_rows: object) -> None:
        self._model = next(model for model in MODELS if model.sha256 == loaded.sha256)
        self.manifest = SimpleNamespace(
            version=self._model.version,
            numeric=("x", "fate"),
            categorical={},
            text=None,
            task=Classification(classes=tuple(str(index) for index in range(self._model.outputs))),
        )

    def halve(self, times: int) -> None: ...

    def score(self, batches: Iterator[pa.RecordBatch]) -> Iterator[ScoredBatch]:
        for batch in batches:
            poisoned = batch.column("fate").to_numpy() == POISON + self._model.number
            failed = tuple(FailedRow(int(row), "network_raises", "poison") for row in np.flatnonzero(poisoned))
            x = batch.column("x").filter(pa.array(~poisoned))
            one = pa.repeat(pa.scalar(1.0, pa.float32()), len(x))
            columns = {"prediction": x, "prediction_proba": one}
            columns |= {f"prob_class_{index}": one for index in range(self._model.outputs)}
            yield ScoredBatch(batch, pa.RecordBatch.from_pydict(columns), failed)


class NoTally:
    """Stands for `shard_stats.Tally`: figures for people."""

    def __init__(self, manifest: object) -> None:
        pass

    def add(self, scored: ScoredBatch) -> None:
        pass

    def figures(self) -> dict[str, Any]:
        return {}


class Clock:
    """Stands for the modules `time` and `uuid` and the class `datetime`, as far as the protocol uses them."""

    world: World

    @classmethod
    def now(cls, zone: object) -> datetime:
        return cls.world.now

    @classmethod
    def time(cls) -> float:
        return cls.world.now.timestamp()

    @classmethod
    def monotonic(cls) -> float:
        return 0.0

    @classmethod
    def sleep(cls, seconds: float) -> None:
        cls.world.pause(seconds)

    @classmethod
    def uuid4(cls) -> SimpleNamespace:
        return SimpleNamespace(hex=f"{cls.world.serial() * 2654435761 % 2**32:08x}")


@dataclass(frozen=True)
class Steps:
    """The functions of a pipeline's assets."""

    pipeline: Pipeline
    functions: dict[str, Callable[[Any], Iterator[object]]]


def steps_of(pipeline: Pipeline) -> Steps:
    """What Dagster would call."""
    makers = (raw_input.raw_input, validated_features.validated_features, model.model, predictions.predictions)
    functions = {
        name: make(pipeline).op.compute_fn.decorated_fn  # type: ignore[union-attr]
        for name, make in zip(ASSETS, makers, strict=True)
    }
    return Steps(pipeline, functions)


class Sourceless(Pipeline):
    """A pipeline without files of code."""

    features_code, scoring_code = "features", "scoring"  # type: ignore[assignment]


def tiny_pipeline(data_root: str) -> Pipeline:
    """Two rows a shard."""
    declared = PipelineSpec.model_validate(
        {
            "name": "sim",
            "description": "a day",
            "partitions": {"start": date(2024, 3, 1)},
            "input": {"key": "id"},
            "features": {"schema": "schema:Rows", "numeric": ["x", "fate"]},
            "model": {"bundle": "sim/models/v1", "network": "network:Net"},
            "scoring": {"rows_per_shard": 2},
            "checks": {"quarantine_is_small": {"blocking_share": 1}},  # days of a few rows, most of them bad
        }
    )
    pipeline = Sourceless(declared, Path(), "none", data_root)
    return pipeline


def _examined(pipeline: Pipeline) -> model_checks.Delivered:
    """Stands for `model_checks.examine`: the bundle that is delivered now."""
    delivered = Clock.world.delivered
    manifest: Any = SimpleNamespace(name="sim", version=delivered.version)
    content = {"bundle.json": delivered.version.encode()}
    bundle: Any = SimpleNamespace(manifest=manifest, sha256=delivered.sha256, content=content, uri="delivered")
    return model_checks.Delivered(bundle, [])


def _described(folder: Folder) -> tuple[Manifest, None]:
    """Stands for `bundle.read_description`: a bundle without a profile, so no check compares with it."""
    manifest = Manifest(
        name="sim",
        version="any",
        task="classification",
        arguments={},
        numeric=("x", "fate"),
        categorical={},
        classes=("0", "1"),
        training={},
        metrics={},
        files={},
    )
    return manifest, None


def _noted(context: SimpleNamespace, *_arguments: object) -> contextlib.AbstractContextManager[StepContext]:
    """Stands for `step_run`: no step has a retry policy."""
    return step_run.recording_failure(context.run)


def _nothing(*_arguments: object) -> dict[str, Any]:
    return {}


SUBSTITUTES: Substitutes = [
    (validate, "Contract", TinyContract),
    (scored_day, "Scorer", TinyScorer),
    (scored_day, "load_model", lambda step, loaded: loaded),
    (stream, "Tally", NoTally),
    (model_checks, "examine", _examined),
    (model_checks, "currency", lambda *_: Finding("days_are_current", True, "")),
    (model_checks, "metrics", lambda *_: Finding("metrics_meet_threshold", True, "")),
    *((module, "read_description", _described) for module in (feature_checks, prediction_checks)),
    (shards, "datetime", Clock),
    (shards, "uuid", Clock),
    (delta, "time", Clock),
    *((module, "step_run", _noted) for module in (raw_input, validated_features, model, predictions)),
    *((module, "batch_backoff", lambda *_: 0) for module in (validated_features, predictions)),
    (raw_input, "input_metadata", _nothing),
    (validated_features, "features_metadata", _nothing),
    (model, "model_metadata", _nothing),
    (predictions, "predictions_metadata", _nothing),
    *((module, "figures", _nothing) for module in (validated_features, predictions)),
]


@contextlib.contextmanager
def replaced(substitutes: Substitutes) -> Iterator[None]:
    """Put stand-ins in their places for a while."""
    before = [(place, name, getattr(place, name)) for place, name, _ in substitutes]
    for place, name, stand_in in substitutes:
        setattr(place, name, stand_in)
    try:
        yield
    finally:
        for place, name, original in before:
            setattr(place, name, original)


class Player:
    """Plays histories, in memory or in a folder on real Delta tables."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._steps = None if folder else steps_of(tiny_pipeline(memory.ROOT))

    def play(self, seed: int, kind: str = "", without: Substitutes = ()) -> World:
        """One history; `violation` of the world says what broke, `trace` how it went.

        Args:
            seed: decides everything.
            kind: of `KINDS`; by the seed if empty.
            without: patches that take a rule out.
        """
        folder = self._folder / str(seed) if self._folder else None
        steps = self._steps or steps_of(tiny_pipeline(str(folder)))
        rng = random.Random(~seed)
        make = KINDS[kind or list(KINDS)[seed % len(KINDS)]]
        world = World(seed, make(rng), HONEST_ERRORS)
        store = real.RealStore(world, folder) if folder else memory.MemoryStore(world)
        world.pipeline, world.store = steps.pipeline, store
        Clock.world = memory.MemoryTable.world = real.PointedTable.world = world
        own = real.substitutes() if folder else memory.substitutes()
        with replaced([(pipeline, "open_folder", store.folder), *own, *SUBSTITUTES, *without]):
            _History(world, steps).play()
        return world


def _corrections(rng: random.Random) -> Habits:
    """Files come and change while some assets are run, and processes die."""
    return Habits(
        {
            "late_file": 2,
            "corrected_file": 3,
            "file_back": 4,
            "file_again": 1,
            "file_removed": 1,
            "archived": 0.3,
            "overtaking": 0.5,
        },
        event=0.02,
        fault=rng.choice((0.0, 0.02)),
        switch=rng.choice((0.03, 0.2)),
        runs=(1, 1, 1, 2),
        partial=0.6,
        waits=0.1,
        groups=(3, 4, 5),
    )


def _crowd(rng: random.Random) -> Habits:
    """Two and three runs at once; files, promotions and other people's commits come just before a commit."""
    return Habits(
        {"late_file": 1, "corrected_file": 3, "promotion": 2, "compaction": 3, "neighbour": 1, "overtaking": 3},
        event=0.01,
        hot=20,
        fault=rng.choice((0.0, 0.005)),
        switch=rng.choice((0.01, 0.1)),
        runs=(2, 2, 3),
        partial=0.1,
    )


def _tampering(rng: random.Random) -> Habits:
    """People work on the tables."""
    return Habits(
        {"compaction": 4, "restoration": 3, "deletion": 1, "corrected_file": 3, "file_back": 1, "vacuum": 1},
        event=0.01,
        hot=rng.choice((5, 30)),
        partial=0.3,
        waits=0.6,
    )


def _housekeeping(rng: random.Random) -> Habits:
    """Old files are removed."""
    return Habits(
        {"suspended": 3, "vacuum": 1, "corrected_file": 1, "file_back": 2, "overtaking": 0.5},
        event=rng.choice((0.0, 0.005)),
        hot=15,
        fault=0.02,
        switch=rng.choice((0.1, 0.3)),
        runs=(1, 1, 2),
        partial=0.1,
        waits=0.9,
        groups=(2, 3, 4),
    )


def _anything(rng: random.Random) -> Habits:
    """A little of everything."""
    weights = {
        "late_file": 3.0,
        "corrected_file": 3.0,
        "file_back": 3.0,
        "file_again": 1.0,
        "file_removed": 1.0,
        "archived": 0.2,
        "promotion": 2.0,
        "compaction": 1.5,
        "restoration": 1.5,
        "deletion": 0.5,
        "neighbour": 1.0,
        "vacuum": 1.0,
        "suspended": 0.3,
        "overtaking": 1.0,
    }
    favourite = rng.choice([*weights])
    weights[favourite] *= 5
    return Habits(
        weights,
        event=rng.choice((0.005, 0.02, 0.05)),
        fault=rng.choice((0.0, 0.005, 0.02)),
        switch=rng.choice((0.05, 0.2, 0.5)),
    )


def _optimizers(rng: random.Random) -> Habits:
    """A compaction comes between load and commit, one run after another."""
    return Habits(
        {"compaction": 3, "corrected_file": 1, "promotion": 1},
        event=0.01,
        hot=30,
        fault=0.0,
        runs=(1,),
        partial=0.0,
        waits=0.0,
        groups=(3, 4),
    )


def _leftovers(rng: random.Random) -> Habits:
    """Processes die, days go by, and the day is run again while what they left is removed."""
    return Habits(
        {"late_file": 1, "deletion": 1},
        event=0.001,
        fault=0.04,
        switch=0.3,
        runs=(1,),
        partial=0.0,
        waits=1.0,
        groups=(3, 4, 5),
    )


def _reuploads(rng: random.Random) -> Habits:
    """The same files are uploaded again, so that others are the newest; people work on the tables."""
    return Habits(
        {"file_again": 5, "late_file": 1, "deletion": 2, "restoration": 1, "compaction": 1, "overtaking": 0.5},
        event=rng.choice((0.01, 0.03)),
        fault=rng.choice((0.0, 0.02)),
        partial=0.3,
    )


KINDS: dict[str, Callable[[random.Random], Habits]] = {
    "anything": _anything,
    "corrections": _corrections,
    "crowd": _crowd,
    "tampering": _tampering,
    "housekeeping": _housekeeping,
    "reuploads": _reuploads,
    "leftovers": _leftovers,
    "optimizers": _optimizers,
}
"""Kinds of histories."""


class _History:
    def __init__(self, world: World, steps: Steps) -> None:
        self._world, self._steps = world, steps
        self._runs = 0
        world.new_run = lambda: self._run(ASSETS)

    def play(self) -> None:
        world, rng = self._world, self._world.random
        for _ in range(rng.choice((1, 2, 2, 3))):
            world.late_file()
        for _ in range(rng.choice(world.habits.groups)):
            waits = rng.random() < world.habits.waits
            if waits:
                world.wait()
            for _ in range(rng.choice((0, 1, 1, 2))):
                world.happen()
            tasks = [self._run(self._selection()) for _ in range(rng.choice(world.habits.runs))]
            world.vacuum_is_on = rng.random() < (0.8 if waits else 0.1)
            if world.vacuum_is_on:
                tasks.append(Task(world, "vacuum", world.vacuum_slowly))
            world.together(tasks)
            world.vacuum_is_on = False
            if world.violation:
                return
        self._settle()

    def _selection(self) -> tuple[str, ...]:
        """All assets or, now and then, one or some of them."""
        partial = (
            ASSETS[:1],
            ASSETS[1:2],
            ASSETS[2:3],
            ASSETS[3:],
            ASSETS[:2],
            ASSETS[2:],
            ("raw_input", "predictions"),
        )
        rng = self._world.random
        return rng.choice(partial) if rng.random() < self._world.habits.partial else ASSETS

    def _run(self, selection: tuple[str, ...]) -> Task:
        self._runs += 1
        world, identifier = self._world, f"run{self._runs}"

        def work(task: Task) -> None:
            run = StepContext(identifier, world.now, lambda _: None)
            context = SimpleNamespace(partition_key=DAY, has_partition_key=True, run=run, instance=None, retry_number=0)
            for name in selection:
                task.since, task.rejected = world.operations, []
                world.note(f"{identifier}: {name}")
                for _ in self._steps.functions[name](context):
                    pass
            world.note(f"{identifier} ends")

        return Task(world, identifier, work)

    def _settle(self) -> None:
        """What the sensor does: run the day until it is settled and of the model in force. Then nothing is to do."""
        world = self._world
        world.is_calm = True
        if not world.landed:
            world.late_file()
        for _ in range(RUNS_TO_SETTLE):
            if self._is_done():
                break
            world.note("not settled")
            world.together([self._run(ASSETS)])
            if world.violation:
                return
        else:
            if not self._is_done():
                return world.violate(f"2: not settled after {RUNS_TO_SETTLE} undisturbed runs")
        for table in NAMES:
            world.table_changed(table, ours=False)
        before = world.writes, world.commits, world.published_days
        if not world.is_current("predictions", world.store.rows("predictions"), world.delivered):
            world.violate("2: the settled day is not of the present input and model")
        world.check_settled()
        if world.violation:
            return None
        world.together([self._run(ASSETS)])
        if not world.violation and (world.writes, world.commits, world.published_days) != before:
            world.violate("3: a run of a settled day wrote something")
        return None

    def _is_done(self) -> bool:
        world = self._world
        published_day = predictions.DayStep(world.pipeline, DAY, "predictions").state.published_day("predictions", DAY)
        return published_day is not None and published_day.model_sha256 == world.delivered.sha256 and world.settled()


def play_all(
    player: Player, seeds: Iterable[int], kind: str = "", without: Callable[[], Substitutes] = list
) -> Iterator[World]:
    """Play histories, each with the patches made anew."""
    return (player.play(seed, kind, without()) for seed in seeds)
