"""Audit of a day, row by row, from only the landing files, the tables and the model."""

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.publish import DayStep
from batch_scoring.inference.bundle import load_bundle
from batch_scoring.ingest import landing_files
from batch_scoring.storage import shards
from batch_scoring.storage.folders.folder import Folder
from batch_scoring.storage.shards import ShardFile
from batch_scoring.storage.state import PublishedDay, State
from batch_scoring.tables import read_day
from batch_scoring_tests.tiny import TinyProject

_WORDS = {"red": 1, "green": 2, "blue": 3}
Place = tuple[str, int]
"""A landing file and a row number in it."""


def some_rows(project: TinyProject, count: int, start: int = 0, shift: float = 0.0) -> pa.Table:
    """Rows of which 1 in 97 breaks a rule and 1 in 89 can't be scored; `shift` makes a correction of them."""
    rows = project.rows(count, start)
    x = [value + shift for value in rows["x"].to_pylist()]
    for n in range(count):
        if (start + n) % 97 == 7:
            x[n] = 5000.0
        elif (start + n) % 89 == 8:
            x[n] = 555.0
    return rows.set_column(rows.column_names.index("x"), "x", pa.array(x))


@dataclass(frozen=True)
class Expected:
    """What has to become of a day's landing files."""

    accepted: dict[str, Place]
    """By key: where the winning row stands."""
    rejected: set[Place]
    scored: pa.Table
    """The accepted rows that have a score, sorted by key, as they landed."""
    unscored: set[str]


def expected(pipeline: Pipeline, day: str) -> Expected:
    """Work out what the tables must hold."""
    accepted: dict[str, Place] = {}
    rejected: set[Place] = set()
    rows = []
    newest_first = sorted(
        landing_files.list_day(pipeline.landing, day), key=lambda f: (f.modified, f.path), reverse=True
    )
    for file in newest_first:
        with pipeline.landing.open(file.path) as stream:
            content = pq.read_table(stream).to_pylist()
        for number, row in enumerate(content, start=1):
            if abs(row["x"]) > 1000 or row["id"] in accepted:
                rejected.add((file.path, number))
            else:
                accepted[row["id"]] = (file.path, number)
                rows.append(row)
    unscored = {row["id"] for row in rows if row["x"] == 555.0}
    form = pa.schema(
        [("id", pa.string()), ("x", pa.float64()), ("y", pa.float64()), ("n", pa.int64()), ("c", pa.string())]
    )
    scored = pa.Table.from_pylist([row for row in rows if row["id"] not in unscored], schema=form).sort_by("id")
    return Expected(accepted, rejected, scored, unscored)


def audit(pipeline: Pipeline, day: str) -> list[str]:
    """Every way in which a settled day is not as promised; the model in force must have scored it."""
    wanted, faults = expected(pipeline, day), []
    model = State(pipeline.output).model()
    features = read_day(pipeline, day, "validated_features")
    predictions = read_day(pipeline, day)
    quarantine = read_day(pipeline, day, "quarantine")  # every day of ours has rejected rows
    if "source_file" not in features.column_names or "id" not in predictions.column_names:
        return [f"{day}: the tables are not there"]
    places = list(zip(features["source_file"].to_pylist(), features["row_number"].to_pylist(), strict=True))
    at_score = pc.equal(quarantine["stage"], "score")
    before = quarantine.filter(pc.invert(at_score))
    thrown = list(zip(before["source_file"].to_pylist(), before["row_number"].to_pylist(), strict=True))
    pairs = {
        "feature rows": (places, wanted.accepted.values()),
        "rejected rows": (thrown, wanted.rejected),
        "feature keys": (features["id"].to_pylist(), wanted.accepted),
        "scored keys": (predictions["id"].to_pylist(), wanted.scored["id"].to_pylist()),
        "unscored keys": (quarantine.filter(at_score)["id"].to_pylist(), wanted.unscored),
    }
    for what, (found, right) in pairs.items():
        there, should = Counter(list(found)), Counter(list(right))
        if there != should:
            faults.append(f"{what}: {(should - there).total()} missing, {(there - should).total()} too many")
    versions = set(predictions["model_version"].to_pylist())
    if versions != {model.version}:
        faults.append(f"scored by {sorted(versions)}, in force is {model.version}")
    if not faults:
        right_scores = scores(pipeline, State(pipeline.output).models.subfolder(model.sha256), wanted.scored)
        off = np.abs(predictions["prob_class_1"].to_numpy() - right_scores).max()
        if off > 1e-5:
            faults.append(f"scores differ by {off:.2g} from the model's")
    return [f"{day}: {fault}" for fault in faults + _accounts(pipeline, day)]


def scores(pipeline: Pipeline, bundle: Folder, rows: pa.Table) -> np.ndarray:
    """prob_class_1 of each row, from the network itself: neither shards nor the engine take part."""
    model = load_bundle(bundle, pipeline.load(pipeline.spec.model.network))
    columns = [np.array([np.nan if v is None else v for v in rows[n].to_pylist()], np.float32) for n in ("x", "y", "n")]
    codes = [[_WORDS.get(value or "", 0)] for value in rows["c"].to_pylist()]
    with torch.inference_mode():
        logits = model.network(torch.from_numpy(np.stack(columns, axis=1)), torch.tensor(codes))
        return np.asarray(torch.softmax(logits, dim=1)[:, 1].numpy())


def _accounts(pipeline: Pipeline, day: str) -> list[str]:
    """The accounts must be of the landing files as they are, and name what the tables hold."""
    faults = []
    fingerprint = landing_files.fingerprint(landing_files.list_day(pipeline.landing, day))
    for name in ("validated_features", "predictions"):
        step = DayStep(pipeline, day, name)  # type: ignore[arg-type]
        published_day = step.state.published_day(name, day)  # type: ignore[arg-type]
        if published_day is None:
            faults.append(f"{name} has no account")
        elif published_day.fingerprint != fingerprint:
            faults.append(f"{name}'s account is of other input")
        elif not step.table.snapshot().holds(published_day.table) or not step.quarantine.snapshot().holds(
            published_day.quarantine
        ):
            faults.append(f"{name}'s account does not name what the tables hold")
        elif published_day.rows_in != published_day.rows + published_day.rows_quarantined:
            faults.append(f"{name}'s account does not add up")
    return faults


@dataclass(frozen=True)
class Foretold:
    """What a reader sees once the landing files and the model of this moment have been published."""

    keys: list[str]
    version: str
    scores: np.ndarray

    def is_seen_in(self, rows: pa.Table) -> bool:
        """Whether a day's predictions are these, whole."""
        if rows["id"].to_pylist() != self.keys or set(rows["model_version"].to_pylist()) != {self.version}:
            return False
        return bool(np.allclose(rows["prob_class_1"].to_numpy(), self.scores, atol=1e-5))


def foretell(pipeline: Pipeline, day: str) -> Foretold:
    """Work out what a reader will see, without running anything."""
    rows = expected(pipeline, day).scored
    version = pipeline.spec.model.bundle.rsplit("/", 1)[-1]
    return Foretold(rows["id"].to_pylist(), version, scores(pipeline, pipeline.bundle, rows))


def signature(pipeline: Pipeline, day: str) -> str:
    """Names what a reader of the day's predictions sees now; when each row was scored does not count."""
    rows = read_day(pipeline, day)
    if not rows.num_rows:
        return "nothing"
    digest = hashlib.sha256()
    for name in sorted(set(rows.column_names) - {"scored_at", "dt"}):
        digest.update(repr(rows[name].to_pylist()).encode())
    return f"{rows.num_rows} rows {digest.hexdigest()[:12]}"


def versions(pipeline: Pipeline) -> dict[str, int]:
    """The version of each of the pipeline's tables: any commit to one raises it."""
    steps = DayStep(pipeline, "2024-03-01", "predictions"), DayStep(pipeline, "2024-03-01", "validated_features")
    tables = [steps[0].table.table, steps[1].table.table, steps[0].quarantine.table]
    return {table.name: delta.version() if (delta := table.load()) else -1 for table in tables}


def finished_shards(pipeline: Pipeline, day: str) -> dict[str, set[str]]:
    """Run ids of all complete shards of a day, committed or not, by table and digest."""
    found: dict[str, set[str]] = {}
    for name in ("validated_features", "predictions"):
        folder = DayStep(pipeline, day, name).table.table.folder  # type: ignore[arg-type]
        for file in folder.list(f"dt={day}/"):
            shard = ShardFile(file.path, file.size)
            if published_day := shards.read_stats(folder, shard):
                found.setdefault(f"{name}/{shard.identity}", set()).add(published_day.run_id)
    return found


def runs_of(published_day: PublishedDay | None) -> dict[str, str]:
    """Run id of each shard of an account, as `finished_shards` names them."""
    if published_day is None:
        return {}
    return {
        f"{published_day.step}/dt={published_day.day}/{shard.digest}": shard.run_id for shard in published_day.shards
    }
