"""From a stranger's table to scored days; what cannot become a pipeline is one line, and leaves nothing behind."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from deltalake import DeltaTable
from torch import nn

import batch_scoring.pipelines
from batch_scoring.cli.new.create import Request, create
from batch_scoring.config import loader
from batch_scoring.errors import SampleError
from batch_scoring_tests.cli.new.conftest import Write
from batch_scoring_tests.strangers import Stranger
from batch_scoring_tests.telco import as_csv, customers


@pytest.mark.slow
def test_a_strangers_table_is_scored_by_two_commands_and_two_more_days_by_a_third(on_disk: Path) -> None:
    stranger = Stranger(on_disk / "project")
    table = on_disk / "telco.csv"
    table.write_text(as_csv(customers()))
    said = stranger.types(f"new telco --sample {table} --label Churn")
    assert "telco.csv: 7,043 rows\nkey          customerID\nlabel        Churn: No, Yes\n" in said
    assert "features     4 numeric, 15 categorical\n" in said and "left out" not in said
    found = re.search(r"auc_held_out ([0-9.]+)", said)
    assert found and float(found[1]) > 0.8, "a network that has learned nothing"
    [landed] = (stranger.folder / "data/telco/landing").iterdir()
    first = landed.name.removeprefix("dt=")
    assert (landed / "telco.csv").read_bytes() == table.read_bytes()

    risk = {row["customerID"]: row["Churn"] == "Yes" for row in customers()}
    scores = stranger.scores(first)
    assert scores.keys() == risk.keys()
    leaving, staying = (np.mean([scores[key] for key in risk if risk[key] is gone]) for gone in (True, False))
    assert leaving > staying + 0.1

    year = int(first[:4]) - 1
    days = (f"{year}-12-30", f"{year}-12-31")  # without a label, in another order, and with a column more
    for number, day in enumerate(days, start=1):
        rows = [row | {"new": "x"} for row in customers(500, seed=number)]
        for row in rows:
            del row["Churn"]
        place = stranger.folder / f"data/telco/landing/dt={day}"
        place.mkdir()
        (place / "telco.csv").write_text(as_csv([dict(reversed(row.items())) for row in rows]))
    said = stranger.types(f"backfill telco {days[0]} {days[1]}")
    assert len(re.findall(r"^\S+ +500 +500 +0 +0 ", said, re.MULTILINE)) == 2, said
    assert all(len(stranger.scores(day)) == 500 for day in days)
    assert "no errors" in stranger.types("doctor telco")
    stranger.types("mypy batch_scoring/pipelines/telco")


@pytest.mark.slow
def test_a_number_is_predicted_from_json_lines_of_several_days(on_disk: Path) -> None:
    stranger = Stranger(on_disk / "flats")
    random = np.random.default_rng(0)
    table = on_disk / "flats.jsonl"
    with table.open("w") as file:
        for number in range(1_200):
            size, sunny = round(random.uniform(20, 120), 1), bool(random.random() < 0.5)
            flat = {"flat": number // 3, "day": f"2026-03-{number % 3 + 1:02d}", "size": size, "sunny": sunny}
            rent = 10 * size + 150 * sunny + random.normal(0, 20)
            flat |= {"size": size if number % 9 else None, "rent": rent, "rooms": {"bath": 1}}
            file.write(json.dumps(flat) + "\n")
    said = stranger.types(f"new flats --sample {table} --label rent --day day --key flat")
    assert "features     2 numeric, 0 categorical\n" in said
    assert "left out     rooms: it holds objects, or arrays of others than numbers\n" in said
    assert "landing/dt=2026-03-01 to dt=2026-03-03, 3 days\n" in said
    learned, guessed = (
        float(re.findall(rf"{name} ([0-9.]+)", said)[0]) for name in ("error_held_out", "median_held_out")
    )
    assert learned < guessed / 3, said
    uris = DeltaTable(str(stranger.folder / "data/flats/tables/predictions")).file_uris()
    rows = [row for uri in uris for row in pq.ParquetFile(uri).read().to_pylist()]
    assert sorted(row["flat"] for row in rows) == list(range(400)), "the newest day alone"
    assert np.std([row["prediction"] for row in rows]) > 100
    assert len(re.findall(r"^\S+ +400 +400 +0 +0 ", said, re.MULTILINE)) == 1
    stranger.types("backfill flats 2026-03-01 2026-03-02")


@pytest.mark.slow
def test_texts_and_lists_of_numbers_are_learned_from(on_disk: Path) -> None:
    stranger = Stranger(on_disk / "letters")
    random = np.random.default_rng(0)
    common = ["dear", "please", "the", "your", "with", "regards", "thank", "you", "about", "my", "last", "order"]
    own = {"refund": ["money back", "refund please"], "delivery": ["parcel late", "not arrived"]}
    table = on_disk / "letters.jsonl"
    with table.open("w") as file:
        for number in range(900):
            topic = ("refund", "delivery")[int(random.integers(2))]
            words = [*random.choice(common, int(random.integers(4, 40))), random.choice(own[topic])]
            meaning = [round(each, 3) for each in random.normal(topic == "refund", 1, 4)]
            letter = {"id": f"l{number}", "body": " ".join(random.permutation(words)), "topic": topic}
            letter |= {"meaning": meaning if number % 9 else None, "tier": ["gold", "free", "none"][number % 3]}
            file.write(json.dumps(letter) + "\n")
    said = stranger.types(f"new letters --sample {table} --label topic")
    assert "features     0 numeric, 1 categorical, 1 text, 1 of vectors\n" in said
    found = re.search(r"auc_held_out ([0-9.]+)", said)
    assert found and float(found[1]) > 0.97, "a network that reads the texts is almost always right"
    assert len(re.findall(r"^\S+ +900 +900 +0 +0 ", said, re.MULTILINE)) == 1, said
    stranger.types("mypy batch_scoring/pipelines/letters")


CHURN = """
import torch
from torch import nn

class Churn(nn.Module):
    def __init__(self, input_dim, cardinalities, hidden_dims, dropout):
        super().__init__()
        self.norm = nn.BatchNorm1d(input_dim)
        self.words = nn.ModuleList([nn.Embedding(n, 3) for n in cardinalities])
        widths = [input_dim + 3 * len(cardinalities), *hidden_dims]
        self.hidden = nn.Sequential()
        for taken, given in zip(widths, widths[1:]):
            self.hidden.extend([nn.Linear(taken, given), nn.BatchNorm1d(given), nn.ReLU(), nn.Dropout(dropout)])
        self.out = nn.Linear(widths[-1], 1)

    def forward(self, x, codes):
        words = [embedding(codes[:, column]) for column, embedding in enumerate(self.words)]
        return self.out(self.hidden(torch.cat([self.norm(x), *words], dim=1))).squeeze(1)
"""
ADAPTED = """
class Network(Churn):
    def forward(self, numeric, categorical):
        return super().forward(numeric.nan_to_num(0.0), categorical.clamp(min=1) - 1)
"""
"""What the comments of network.py ask for: missing numbers are filled as in training, and codes begin at 0 again."""
LIGHTNING = """
from torch import nn

class Network(nn.Module):
    def __init__(self, hidden_dims):
        super().__init__()
        widths = [4, *hidden_dims, 2]
        self.norm = nn.BatchNorm1d(4)
        self.steps = nn.ModuleList([nn.Linear(taken, given) for taken, given in zip(widths, widths[1:])])

    def forward(self, x):
        x = self.norm(x.nan_to_num(0.0))
        for step in self.steps[:-1]:
            x = step(x).relu()
        return self.steps[-1](x)
"""
NUMBERS = ["SeniorCitizen", "tenure", "MonthlyCharges", "TotalCharges"]


def owned(code: str, name: str, arguments: dict[str, Any]) -> nn.Module:
    """A trained network of somebody's own code."""
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    torch.manual_seed(1)
    network: nn.Module = namespace[name](**arguments)
    network.norm.running_mean.fill_(30.0)  # type: ignore[union-attr, operator]
    network.norm.running_var.fill_(900.0)  # type: ignore[union-attr, operator]
    return network.eval()


def inputs(rows: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """What the owner's code makes of the table: blanks are 0, words are coded in sorted order from 0."""
    numbers = [[float(str(row[name]).strip() or 0) for name in NUMBERS] for row in rows]
    others = [name for name in rows[0] if name not in (*NUMBERS, "customerID", "Churn")]
    words = {name: sorted({row[name] for row in rows}) for name in others}
    codes = [[words[name].index(row[name]) for name in others] for row in rows]
    return torch.tensor(numbers), torch.tensor(codes), [len(words[name]) for name in others]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["data_parallel", "lightning"])
def test_weights_of_ones_own_are_scored_with_by_what_is_printed(on_disk: Path, kind: str) -> None:
    stranger = Stranger(on_disk / kind)
    rows = customers(1_000)
    numbers, codes, cardinalities = inputs(rows)
    built: dict[str, Any] = {"hidden_dims": [16, 8]}
    if kind == "lightning":
        rows = [{name: row[name] for name in ("customerID", *NUMBERS, "Churn")} for row in rows]
        network, code = owned(LIGHTNING, "Network", built), LIGHTNING
        expected = network(numbers).softmax(dim=1)[:, 1]
        state = {f"model.{name}": value for name, value in network.state_dict().items()} | {"loss.w": torch.ones(2)}
        content = {"pytorch-lightning_version": "2.4", "state_dict": state, "hyper_parameters": built, "epoch": 3}
    else:
        built |= {"input_dim": 4, "cardinalities": cardinalities, "dropout": 0.1}
        network, code = owned(CHURN, "Churn", built), CHURN + ADAPTED
        expected = network(numbers, codes).sigmoid()
        content = {"epoch": 9, "model_state_dict": nn.DataParallel(network).state_dict(), "config": built}
    table = on_disk / f"{kind}.csv"
    table.write_text(as_csv(rows))
    torch.save(content, on_disk / f"{kind}.pt")
    said = stranger.types(f"new telco --sample {table} --label Churn --checkpoint {on_disk / kind}.pt")
    (stranger.folder / "batch_scoring/pipelines/telco/network.py").write_text(code)
    commands = re.findall(r"^- batch-scoring ((?:.*\\\n)*.*)\n", said, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["checkpoint", "backfill"]
    for command in commands:
        stranger.types(command.replace("\\\n", " "))
    found = stranger.scores(commands[1].split()[-1])
    assert np.std([*found.values()]) > 0.01, "a network that tells rows apart"
    own = [found[row["customerID"]] for row in rows]
    np.testing.assert_allclose(own, expected.detach().numpy(), atol=1e-6)


# in this process, without training


@pytest.fixture
def pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of pipelines and a data root of the test's own."""
    folder = tmp_path / "pipelines"
    folder.mkdir()
    monkeypatch.setattr(loader, "PIPELINES", folder)
    monkeypatch.setenv("BATCH_SCORING_DATA", str(tmp_path / "data"))
    batch_scoring.pipelines.__path__.append(str(folder))
    yield folder
    batch_scoring.pipelines.__path__.remove(str(folder))


def test_with_weights_of_ones_own_no_script_is_written_and_the_command_is_said(
    pipelines: Path, write: Write, tmp_path: Path
) -> None:
    torch.save(nn.Linear(4, 1).state_dict(), tmp_path / "my weights.pt")
    said: list[str] = []
    request = Request(
        "with_weights", write(customers(300), "telco.csv"), label="Churn", checkpoint=tmp_path / "my weights.pt"
    )
    assert create(request, said.append) == 0
    assert sorted(file.name for file in (pipelines / "with_weights").glob("*.*")) == [
        "__init__.py",
        "network.py",
        "pipeline.yaml",
        "schema.py",
    ]
    text = "".join(said)
    assert f"--checkpoint '{tmp_path}/my weights.pt'" in text and "--classes No Yes --logits 1" in text
    words = json.loads((tmp_path / "data/with_weights/training/vocabulary.json").read_text())
    assert len(words) == 15 and words["Partner"] == ["No", "Yes"]
    sample = pq.read_table(tmp_path / "data/with_weights/training/sample.parquet")
    assert sample.column_names[:2] == ["customerID", "dt"] and sample.column_names[-1] == "Churn"
    assert len(sample) == 300 and sample["TotalCharges"].null_count == 11


def test_a_file_that_would_run_code_is_refused_and_leaves_nothing(
    pipelines: Path, write: Write, tmp_path: Path
) -> None:
    torch.jit.script(nn.Linear(4, 1)).save(str(tmp_path / "script.pt"))  # type: ignore[no-untyped-call]
    request = Request("scripted", write(customers(300)), label="Churn", checkpoint=tmp_path / "script.pt")
    with pytest.raises(SampleError, match=r"--checkpoint .*script\.pt.*TorchScript"):
        create(request, pytest.fail)
    assert not (pipelines / "scripted").exists() and not (tmp_path / "data/scripted").exists()


def test_rows_without_a_label_or_against_the_schema_are_not_trained_on(
    pipelines: Path, write: Write, tmp_path: Path
) -> None:
    torch.save(nn.Linear(4, 1).state_dict(), tmp_path / "x.pt")
    rows = customers(400)
    for row in rows[:30]:
        row["Churn"] = ""
    for row in rows[30:33]:
        row["MonthlyCharges"] = "1e400"  # no number that can be held
    rows[40]["customerID"] = rows[41]["customerID"]
    said: list[str] = []
    with pytest.raises(SampleError, match="--key customerID: 1 of 400 rows repeat"):
        create(Request("lost", write(rows), "customerID", "Churn"), said.append)
    rows[40]["customerID"] = "another"
    assert create(Request("lost", write(rows), "customerID", "Churn", checkpoint=tmp_path / "x.pt"), said.append) == 0
    assert "sample.parquet: 367 rows, 33 have no label or break the schema" in "".join(said)


REFUSED = {
    "an existing name": (Request("here", Path("sample.csv")), "/here exists; choose another name, or remove it"),
    "existing data": (Request("has_data", Path("sample.csv")), "/data/has_data exists; choose another name"),
    "a name with a dash": (Request("my-table", Path("sample.csv")), "'my-table' is not a pipeline's name; expected at"),
    "a word of Python": (Request("class", Path("sample.csv")), "'class' is not a pipeline's name"),
    "a path": (Request("../x", Path("sample.csv")), "'../x' is not a pipeline's name"),
    "no sample": (Request("new", Path("none.csv")), "none.csv is not a file"),
    "few rows": (
        Request("new", Path("few.csv"), label="Churn"),
        "few.csv has 150 rows with a label; expected at",
    ),
    "no key": (Request("new", Path("sample.csv"), key="gender"), "--key gender: 298 of 300 rows repeat another row's"),
    "no such label": (
        Request("new", Path("sample.csv"), label="churn"),
        "--label churn: no such column; the sample",
    ),
    "no days": (Request("new", Path("sample.csv"), day="gender"), "--day gender: its values are not days"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_pipeline_is_one_line_and_leaves_nothing(
    pipelines: Path, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(customers(300))
    write([row | ({} if number < 150 else {"Churn": ""}) for number, row in enumerate(customers(300))], "few.csv")
    (pipelines / "here").mkdir()
    (tmp_path / "data/has_data").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    request, reason = REFUSED[case]
    with pytest.raises(SampleError, match=re.escape(reason)) as refused:
        create(request, pytest.fail)
    assert "\n" not in str(refused.value) and refused.value.exit_code == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_on_the_way_leaves_nothing(
    pipelines: Path, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pq, "write_table", None)
    with pytest.raises(TypeError):
        create(Request("broken", write(customers(300)), label="Churn"), pytest.fail)
    assert not (pipelines / "broken").exists() and not (tmp_path / "data/broken").exists()


def test_data_on_s3_is_refused(pipelines: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_SCORING_DATA", "s3://bucket/data")
    with pytest.raises(SampleError, match="BATCH_SCORING_DATA is s3://bucket/data; expected a local folder"):
        create(Request("remote", write(customers(300))), pytest.fail)
