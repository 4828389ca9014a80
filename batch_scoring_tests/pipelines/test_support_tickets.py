"""The generated tickets, their contract, the embedded model, and days before and after the recall."""

import json
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import tokenizers
import torch

from batch_scoring.config.loader import PROJECT, declared_pipeline, load_pipelines
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.definitions import deploy
from batch_scoring.inference.bundle import load_bundle, read_bundle
from batch_scoring.inference.manifest import LoadedModel
from batch_scoring.inference.scorer import Scorer
from batch_scoring.ingest.schema.contract import Contract, ValidationResult
from batch_scoring.pipelines.support_tickets import phrases
from batch_scoring.pipelines.support_tickets.data import (
    FILE,
    RECALL_FROM,
    RECALL_SHARE,
    SCHEMA,
    TOPICS,
    tickets,
    usual_rows,
)
from batch_scoring.pipelines.support_tickets.network import TicketNet
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.tables import read_day
from batch_scoring_tests.tiny import checks

DATA = PROJECT / "data/support_tickets"
LANDING, BUNDLE = DATA / "landing", DATA / "models/v1"
DAY = date(2025, 3, 5)
EMBEDDED = [date(2025, 3, 3) + timedelta(number) for number in range(14)]
BEFORE, AFTER = ["2025-03-06", "2025-03-08", "2025-03-09"], ["2025-03-11", "2025-03-12", "2025-03-15"]


def validated(rows: pa.Table) -> ValidationResult:
    [batch] = rows.combine_chunks().to_batches()
    return Contract(declared_pipeline("support_tickets")).validate(batch, is_text=False)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_bundle(open_folder(str(BUNDLE)), TicketNet)


# the tickets


def test_a_day_is_the_same_every_time_and_no_other_day() -> None:
    assert tickets(DAY, 200).equals(tickets(DAY, 200))
    assert not tickets(DAY, 200)["body"].equals(tickets(DAY + timedelta(1), 200)["body"])


def test_a_shorter_table_is_the_beginning_of_a_longer_one() -> None:
    assert tickets(DAY, 300).slice(0, 100).equals(tickets(DAY, 100))
    assert tickets(DAY, 0).schema == SCHEMA


def test_fewer_tickets_come_in_at_weekends_and_more_during_the_recall() -> None:
    rows = [usual_rows(day) for day in EMBEDDED]
    assert all(max(week[5:]) < min(week[:5]) for week in (rows[:7], rows[7:]))
    assert sum(rows[7:]) == pytest.approx(sum(rows[:7]) / (1 - RECALL_SHARE), rel=0.1)


def test_every_sentence_can_be_written() -> None:
    """Each slot is filled, and nothing of the notation is left."""
    bodies = " ".join(tickets(RECALL_FROM, 8_000)["body"].to_pylist())
    assert not set("{}|") & set(bodies)
    for language, article in (("en", ""), ("de", "die ")):
        assert all(product.removeprefix(article) in bodies for product in phrases.PRODUCTS[language])  # type: ignore[index]


def test_customers_write_two_languages_and_misspell_some() -> None:
    rows = tickets(DAY, 4_000)
    german = pc.match_substring_regex(rows["body"], r"(?i)\b(ich|nicht|ist|bitte|der|die|und)\b").to_numpy()
    assert 0.25 < german.mean() < 0.45
    words = {word for text in rows["body"].to_pylist() for word in text.lower().split()}
    assert {"please", "plesae", "pleease"} <= words


def test_the_recall_is_a_topic_from_its_first_day_on() -> None:
    def share(day: date) -> float:
        return float(np.mean([topic == "recall" for topic in tickets(day, 2_000)["topic"].to_pylist()]))

    assert share(RECALL_FROM - timedelta(1)) == 0
    assert share(RECALL_FROM) == pytest.approx(RECALL_SHARE, abs=0.03)


def test_the_embedded_landing_days_are_what_the_command_writes(tmp_path: Path) -> None:
    for day in (EMBEDDED[0], EMBEDDED[-1]):
        command = [sys.executable, "-m", "batch_scoring.pipelines.support_tickets.data", "--day", str(day)]
        subprocess.run([*command, "--out", str(tmp_path)], check=True, cwd=PROJECT, capture_output=True)
        name = f"dt={day}/{FILE}"
        assert (tmp_path / name).read_bytes() == (LANDING / name).read_bytes()


@pytest.mark.parametrize("day", EMBEDDED)
def test_an_embedded_day_has_the_generated_tickets_without_their_topics(day: date) -> None:
    lines = (LANDING / f"dt={day}" / FILE).read_text("utf-8").splitlines()
    expected = tickets(day).drop_columns("topic").to_pylist()
    assert [dict.fromkeys(SCHEMA.names[:-1]) | json.loads(line) for line in lines] == expected


def test_the_embedded_files_are_small() -> None:
    assert sum(file.stat().st_size for file in LANDING.rglob(FILE)) < 2 * 1024**2
    assert sum(file.stat().st_size for file in BUNDLE.iterdir()) < 1.5 * 1024**2


# the contract


def test_the_contract_rejects_orders_of_the_future_and_nothing_else() -> None:
    rows = tickets(DAY, 4_000)
    verdict = validated(rows)
    found = {(reason.rule, reason.column) for reason in verdict.rejected.values()}
    assert found == {("greater_than_or_equal_to(0)", "days_since_order")}
    assert 0.001 < len(verdict.rejected) / len(rows) < 0.01


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("ticket_id", "17", "str_matches('^\\d{6}-\\d{5,}$')"),
        ("channel", "fax", "isin(['email', 'app', 'chat'])"),
        ("tier", None, "not_nullable"),
        ("earlier_tickets", -1, "greater_than_or_equal_to(0)"),
        ("days_since_order", float("inf"), "is_finite"),
        ("body", None, "not_nullable"),
    ],
)
def test_the_contract_rejects_what_cannot_be(column: str, value: object, rule: str) -> None:
    rows = tickets(DAY, 3)
    nullable = pa.schema([field.with_nullable(True) for field in SCHEMA])
    place, values = SCHEMA.get_field_index(column), [*rows[column].to_pylist()[:2], value]
    spoilt = rows.cast(nullable).set_column(place, nullable.field(place), pa.array(values, SCHEMA.field(place).type))
    verdict = validated(spoilt)
    assert {row: (reason.rule, reason.column) for row, reason in verdict.rejected.items()} == {2: (rule, column)}


# the model


@pytest.mark.slow
def test_the_embedded_bundle_is_what_the_command_writes(tmp_path: Path) -> None:
    """The weights may round differently on another kind of processor; the tokenizer must not."""
    command = [sys.executable, "-m", "batch_scoring.pipelines.support_tickets.train", "--out", str(tmp_path / "v1")]
    subprocess.run(command, check=True, cwd=PROJECT, capture_output=True)
    found, embedded = (read_bundle(open_folder(str(folder))) for folder in (tmp_path / "v1", BUNDLE))
    assert found.content["tokenizer.json"] == embedded.content["tokenizer.json"]
    same = {"files": {}, "metrics": {}}
    assert found.manifest.model_copy(update=same) == embedded.manifest.model_copy(update=same)
    accuracy = embedded.manifest.metrics["accuracy_held_out_days"]
    assert found.manifest.metrics["accuracy_held_out_days"] == pytest.approx(accuracy, abs=0.01)


def test_the_model_knows_all_topics_but_the_new_one(model: LoadedModel) -> None:
    assert model.manifest.task.class_names == TOPICS[:-1]
    assert str(RECALL_FROM) > model.manifest.training["to"]


def test_the_embedded_model_is_honest_and_useful(model: LoadedModel) -> None:
    """Of days after its window it knows as many topics as it says, and no topic that it has never seen."""
    rows = pa.concat_tables(tickets(day) for day in EMBEDDED)
    rows = rows.take(pa.array(validated(rows).positions))
    scores = Scorer(model, device="cpu").score_batch(rows.combine_chunks().to_batches()[0]).scores
    right = np.array(TOPICS)[scores["prediction"].to_numpy()] == np.array(rows["topic"].to_pylist())
    is_later = np.array([day[:6] >= f"{RECALL_FROM:%y%m%d}" for day in rows["ticket_id"].to_pylist()])
    confidence = scores["prediction_proba"].to_numpy()
    assert 0.84 < right[~is_later].mean() < 0.9
    assert confidence[~is_later].mean() == pytest.approx(right[~is_later].mean(), abs=0.02)
    assert right[is_later].mean() < 0.75 < confidence[is_later].mean() < confidence[~is_later].mean() - 0.02


# the days


class Days:
    """The pipeline with some embedded days scored, each in a run of its own."""

    def __init__(self, root: Path) -> None:
        for name in ("customer_churn", "flight_delay", "support_tickets"):
            shutil.copytree(PROJECT / "data" / name / "models", root / name / "models")
        shutil.copytree(LANDING, root / "support_tickets/landing")
        found = {pipeline.name: pipeline for pipeline in load_pipelines(root=str(root))}
        self.pipeline: Pipeline = found["support_tickets"]
        job = deploy([self.pipeline]).resolve_job_def("score_support_tickets")
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        self.results = {
            day: job.execute_in_process(partition_key=day, run_config=quiet, raise_on_error=False)
            for day in (*BEFORE, *AFTER)
        }

    def read(self, day: str, table: str = "predictions") -> pa.Table:
        return read_day(self.pipeline, day, table)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Days:
    return Days(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("day", [*BEFORE, *AFTER])
def test_drift_is_found_once_the_recall_has_begun_and_not_before(days: Days, day: str) -> None:
    result: dg.ExecuteInProcessResult = days.results[day]
    assert result.success
    failed = {name for name, passed in checks(result).items() if not passed}
    expected = {"validated_features/features_match_reference"} if day in AFTER else set()
    assert failed - {"model/days_are_current"} == expected


@pytest.mark.parametrize("rows", [1, 7, 64, 1_000])
def test_record_batches_of_any_size_give_the_published_bits(days: Days, model: LoadedModel, rows: int) -> None:
    published = days.read(AFTER[0])
    features = days.read(AFTER[0], "validated_features").combine_chunks()
    scorer = Scorer(model, device="cpu")
    found = [scorer.score_batch(batch) for batch in features.to_batches(max_chunksize=rows)]
    assert not any(scored.failed for scored in found)
    scores = pa.Table.from_batches([scored.scores for scored in found])
    assert published["ticket_id"].equals(features["ticket_id"])
    assert scores.equals(published.select(scores.column_names).cast(scores.schema))


def test_every_ticket_alone_in_plain_torch_has_the_published_score(days: Days, model: LoadedModel) -> None:
    """One ticket after the other, with exactly its own tokens: no batch, no padding, none of the engine's code."""
    published = days.read(BEFORE[1])
    tokenizer = tokenizers.Tokenizer.from_file(str(BUNDLE / "tokenizer.json"))
    vocabularies, numeric = model.manifest.categorical, declared_pipeline("support_tickets").spec.features.numeric
    scores = []
    for row in days.read(BEFORE[1], "validated_features").to_pylist():
        tokens = torch.tensor([tokenizer.encode(f"{row['subject'] or ''}\n{row['body']}").ids])
        numbers = torch.tensor([[torch.nan if row[name] is None else row[name] for name in numeric]])
        codes = torch.tensor([[1 + words.index(row[name]) for name, words in vocabularies.items()]])
        with torch.inference_mode():
            scores.append(model.network(tokens, numbers, codes).softmax(dim=1)[0].numpy())
    found = np.column_stack([published[f"prob_class_{topic}"].to_numpy() for topic in range(len(TOPICS) - 1)])
    np.testing.assert_allclose(found, np.array(scores), atol=1e-6, rtol=0)
    assert (published["prediction"].to_numpy() == np.argmax(scores, axis=1)).all()


def test_a_ticket_goes_to_the_team_of_its_topic_or_to_a_person(days: Days) -> None:
    scores, decided = days.read(BEFORE[0]), days.read(BEFORE[0], "decisions")
    assert scores["ticket_id"].equals(decided["ticket_id"])
    topics = np.array(TOPICS)[scores["prediction"].to_numpy()]
    expected = np.where(decided["score"].to_numpy() >= 0.7, topics, "triage")
    assert decided["action"].to_pylist() == expected.tolist()
    assert decided["score"].cast(pa.float32()).equals(scores["prediction_proba"])
    assert "body +" in " ".join(filter(None, decided["why"].to_pylist()))


def test_the_recall_sends_more_tickets_to_a_person(days: Days) -> None:
    def share(day: str) -> float:
        return float(np.mean([action == "triage" for action in days.read(day, "decisions")["action"].to_pylist()]))

    assert max(map(share, BEFORE)) < min(map(share, AFTER))
