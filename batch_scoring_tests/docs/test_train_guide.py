"""What the guide on training shows is the whole code of three models, and works as it stands."""

import re
import runpy
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import yaml

import batch_scoring.pipelines
from batch_scoring import Training
from batch_scoring.config import loader
from batch_scoring.config.loader import PROJECT, load_pipelines
from batch_scoring.daily.model_code import model_code
from batch_scoring.inference.bundle import load_bundle, read_bundle
from batch_scoring.inference.scorer import Scorer
from batch_scoring.storage.folders.addresses import open_folder

GUIDE = (PROJECT / "docs/guides/train.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL))
DAYS = [date(2024, 1, 1) + timedelta(day) for day in range(32)]


def files(*sections: str) -> dict[str, str]:
    """Return the files that some sections show; of two versions of one file, the last."""
    found = {}
    for section in sections:
        for kind, block in re.findall(r"```(yaml|python)\n(.*?)```", SECTIONS[section], re.DOTALL):
            name = "pipeline.yaml" if kind == "yaml" else block.partition("\n")[0].removeprefix("# ")
            found[name] = block
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Provide a folder in which the guide's commands run, with a folder of pipelines of its own."""
    (tmp_path / "pipelines").mkdir()
    batch_scoring.pipelines.__path__.append(str(tmp_path / "pipelines"))
    monkeypatch.setattr(loader, "PIPELINES", tmp_path / "pipelines")
    monkeypatch.setenv("BATCH_SCORING_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    batch_scoring.pipelines.__path__.remove(str(tmp_path / "pipelines"))
    for name in [name for name in sys.modules if re.match(r"batch_scoring\.pipelines\.(loans|letters)", name)]:
        del sys.modules[name]


def train(place: Path, shown: dict[str, str]) -> Training:
    """Write the files, and run train.py where they say."""
    folder = place / "pipelines" / yaml.safe_load(shown["pipeline.yaml"])["name"]
    folder.mkdir()
    for name, text in shown.items():
        (folder / name).write_text(text)
    data: Training = runpy.run_path(str(folder / "train.py"))["data"]
    assert [each.name for each in (place / "data" / folder.name / "models").iterdir()] == ["v1"]
    return data


def published_alike(data: Training, place: Path) -> None:
    """The bundle is the one that the spec names, is calibrated, and gives the training rows the network's outputs."""
    pipeline = next(one for one in load_pipelines(place / "pipelines") if one.name == data.pipeline.name)
    bundle = read_bundle(open_folder(pipeline.bundle.uri))
    assert bundle.profile is not None and bundle.manifest.metrics["accuracy"] > 0.85
    model = load_bundle(pipeline.bundle, model_code(pipeline))
    found = Scorer(model, device="cpu").outputs(data.rows.select(model.columns))
    np.testing.assert_allclose(found, data.outputs(model.network).numpy(), atol=1e-5, rtol=1e-5)


def loans() -> pa.Table:
    random = np.random.default_rng(7)
    count = 60 * len(DAYS)
    amount, income = random.gamma(2, 9_000, count).round(), random.gamma(4, 9_000, count).round()
    purpose = random.choice(["car", "house", "study"], count)
    late = amount / income + (purpose == "study") > 0.9
    return pa.table(
        {
            "loan_id": [f"l{number % 60:07d}" for number in range(count)],
            "dt": [DAYS[number // 60] for number in range(count)],
            "amount": amount,
            "income": pa.array(income, mask=random.random(count) < 0.03),
            "term_months": random.choice([12, 24, 36], count),
            "purpose": pa.array(purpose, mask=random.random(count) < 0.02),
            "outcome": np.where(late, "defaults", "repays"),
        }
    )


def letters() -> pa.Table:
    random = np.random.default_rng(8)
    words = {"claims": "damage accident repair", "contracts": "cancel renew sign", "complaints": "late rude never"}
    departments = random.choice([*words], 40 * len(DAYS))
    common = ["dear", "please", "the", "your", "with", "regards", "thank", "you", "Schaden"]

    def text(department: str, length: int) -> str:
        own = random.choice(words[department].split(), 2)
        return " ".join(random.permutation([*own, *random.choice(common, length)]))

    return pa.table(
        {
            "letter_id": [f"b{number:06d}" for number in range(len(departments))],
            "dt": [DAYS[number // 40] for number in range(len(departments))],
            "subject": [None if number % 9 == 4 else "A letter" for number in range(len(departments))],
            "body": [text(each, int(random.integers(1, 60))) for each in departments],
            "department": departments,
        }
    )


def test_a_table_is_trained_on_as_the_guide_says(place: Path) -> None:
    pyarrow.csv.write_csv(loans(), "labelled.csv")
    data = train(place, files("Numbers and categories"))
    assert [*data.tensors] == ["numeric", "categorical"]
    published_alike(data, place)


def test_features_are_added_and_train_py_stays_as_it_is(place: Path) -> None:
    pyarrow.csv.write_csv(loans(), "labelled.csv")
    data = train(place, files("Numbers and categories", "Features made from columns"))
    assert {"amount_log", "burden"} <= {*data.rows.column_names} and [*data.fitted] == ["income"]
    published_alike(data, place)


def test_texts_are_trained_on_as_the_guide_says(place: Path) -> None:
    rows = letters().to_pandas().astype({"dt": str})
    rows.to_json("labelled.jsonl", orient="records", lines=True)
    data = train(place, files("Texts"))
    assert [*data.tensors] == ["tokens"] and data.vocabulary_size < 200
    published_alike(data, place)


def test_the_table_of_names_is_complete() -> None:
    shown = set(re.findall(r"data\.(\w+)", "\n".join(re.findall(r"^\| .*", GUIDE, re.MULTILINE))))
    public = {name for name in dir(Training) if not name.startswith("_")} - {"pipeline", "train_tokenizer", "write"}
    assert shown == public
