"""Networks as they are published come in by one command and at most ten lines of the owner's, and score as their own.

Each kind has the traits of checkpoints that people publish; its truth is the published class in eager torch.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import tokenizers
import torch

from batch_scoring.cli.main import main
from batch_scoring.config import loader
from batch_scoring.inference.bundle import load_bundle
from batch_scoring.inference.network.code import ModelCode
from batch_scoring.inference.scorer import Scorer
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.tiny import DAY, TinyProject

ROWS = 2_000
FEATURES = ["x", "y", "n"]

Save = Callable[[torch.nn.Module, Path], object]


class Accuracy:
    """A metric object of the training code, such as torchmetrics', beside the weights."""

    def __init__(self) -> None:
        self.total, self.threshold = np.float64(12.0), torch.tensor(0.5)


@dataclass(frozen=True)
class Kind:
    """A published network, and what its owner writes."""

    published: str
    """The publisher's module, pasted into network.py; its class is Published."""
    arguments: dict[str, Any]
    save: Save
    command: list[str]
    owner: str = ""
    """The owner's lines in network.py; with none, the pipeline names the publisher's class."""
    own: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor] = lambda network, x: network(x).softmax(dim=1)[:, 1]
    """The publisher's way from the network and the features, without missing values, to scores."""
    says: str = ""
    column: str = "prob_class_1"


def bare(network: torch.nn.Module, file: Path) -> None:
    torch.save(network.state_dict(), file)


def parallel(network: torch.nn.Module, file: Path) -> None:
    torch.save(torch.nn.DataParallel(network).state_dict(), file)


def half(network: torch.nn.Module, file: Path) -> None:
    safetensors.torch.save_file(network.half().state_dict(), file)
    network.float()


def training_run(network: torch.nn.Module, file: Path) -> None:
    """A file that torch itself refuses without its classes."""
    optimiser = torch.optim.Adam(network.parameters())
    optimiser.zero_grad()
    content = {
        "epoch": np.int64(7),
        "model_state": network.state_dict(),
        "optimizer_state": optimiser.state_dict(),
        "scaler": Accuracy(),
        "best_loss": np.float32(0.25),
    }
    torch.save(content, file)


def lightning(network: torch.nn.Module, file: Path) -> None:
    """What `Trainer.save_checkpoint` writes."""
    weights = {f"model.{name}": value for name, value in network.state_dict().items()}
    content = {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": weights | {"criterion.pos_weight": torch.tensor([2.0])},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"EarlyStopping": {"best_score": torch.tensor(0.3)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(16, 3)}}, "param_groups": []}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"input_dim": 3, "hidden_dims": [16, 8], "metric": Accuracy()},
    }
    torch.save(content, file)


MLP = """
import torch
from torch import nn

class Published(nn.Module):
    def __init__(self, input_dim, hidden_dims=[16, 8], outputs=2, dropout=0.3):
        super().__init__()
        layers, width = [], input_dim
        for hidden in hidden_dims:
            layers += [nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout)]
            width = hidden
        self.network = nn.Sequential(*layers, nn.Linear(width, outputs))

    def forward(self, x):
        return self.network(x)
"""

LSTM = """
import torch
from torch import nn

class Published(nn.Module):
    def __init__(self, input_size, hidden_size, num_layers=2, outputs=2):
        super().__init__()
        self.lstm = nn.LSTM(input_size, hidden_size, num_layers, batch_first=True, dropout=0.2)
        self.norm = nn.LayerNorm(hidden_size)
        self.head = nn.Linear(hidden_size, outputs)

    def forward(self, x):                         # (n, 1, features)
        out, _ = self.lstm(x)
        return self.head(self.norm(out[:, -1, :]))
"""

GRU = """
import torch
from torch import nn

class Published(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.gru = nn.GRU(1, hidden, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * hidden, 2)

    def forward(self, sequence):                  # (n, features, 1)
        _, last = self.gru(sequence)
        return self.fc(torch.cat([last[0], last[1]], dim=1))
"""

CHURN = """
import torch
from torch import nn

class Published(nn.Module):
    def __init__(self, input_dim, hidden_dims=[16, 8], dropout_rate=0.3):
        super().__init__()
        layers, previous = [], input_dim
        for hidden in hidden_dims:
            layers.extend([nn.Linear(previous, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout_rate)])
            previous = hidden
        layers.append(nn.Linear(previous, 1))
        layers.append(nn.Sigmoid())
        self.network = nn.Sequential(*layers)

    def forward(self, x):
        return self.network(x).squeeze()
"""

FRAUD = """
import torch
from torch import nn

class Published(nn.Module):
    def __init__(self, n_features):
        super().__init__()
        self.conv = nn.Conv1d(1, 8, kernel_size=2)
        self.bn = nn.BatchNorm1d(8)
        self.fc = nn.Linear(8 * (n_features - 1), 1)

    def forward(self, x):                         # (n, 1, features)
        found = torch.relu(self.bn(self.conv(x)))
        return self.fc(found.flatten(1))
"""

VALUES = """
import torch
from torch import nn

class Published(nn.Module):
    def __init__(self, hidden, outputs):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, hidden), nn.SiLU(), nn.LayerNorm(hidden))
        self.out = nn.Linear(hidden, outputs)

    def forward(self, x):
        return self.out(self.body(x))
"""

FILLED = """
class Net(Published):
    def forward(self, numeric):
        return super().forward(numeric.nan_to_num(0.0))
"""

MEAN, SCALE = torch.tensor([0.0, 5.0, 2.0]), torch.tensor([5.0, 4.0, 1.5])

ONE_IN = {"n_features": 3}
ONE = ["--arguments", json.dumps(ONE_IN)]
RECURRENT = {"input_size": 3, "hidden_size": 12}
LAYERS = ["--arguments", json.dumps(RECURRENT)]
WIDE = '{"input_dim": 3, "hidden_dims": [16, 8]}'

KINDS = {
    "batch norm, dropout, a list of widths, DataParallel": Kind(
        published=MLP,
        arguments={"input_dim": 3},
        save=parallel,
        owner=FILLED,
        command=["--arguments", WIDE, "--classes", "stays", "leaves"],
        says="weights: prefix module. removed\n",
    ),
    "a training run with its optimiser and objects": Kind(
        published=MLP,
        arguments={"input_dim": 3},
        save=training_run,
        owner=FILLED,
        command=["--arguments", WIDE, "--classes", "stays", "leaves"],
        says="weights: entry model_state\nnot loaded, and not needed: numpy.dtype, ",
    ),
    "Lightning with hyper-parameters and a metric": Kind(
        published=MLP,
        arguments={"input_dim": 3},
        save=lightning,
        owner=FILLED,
        command=["--arguments", WIDE, "--classes", "stays", "leaves"],
        says="weights: entry state_dict, prefix model. removed, left out criterion.pos_weight\n",
    ),
    "safetensors in half precision, three classes": Kind(
        published=MLP,
        arguments={"input_dim": 3, "outputs": 3},
        save=half,
        owner=FILLED,
        command=["--arguments", '{"input_dim": 3, "outputs": 3}', "--classes", "a", "b", "c"],
        says="stored in float16, widened to float32\n",
    ),
    "a sigmoid inside, squeezed, DataParallel": Kind(
        published=CHURN,
        arguments={"input_dim": 3},
        save=parallel,
        owner=FILLED,
        command=["--arguments", WIDE, "--classes", "stays", "leaves", "--logits", "1", "--outputs", "probabilities"],
        own=lambda network, x: network(x),
        says="weights: prefix module. removed\n",
    ),
    "one logit, a convolution over (n, 1, features)": Kind(
        published=FRAUD,
        arguments={"n_features": 3},
        save=training_run,
        owner="""
class Net(Published):
    def forward(self, numeric):
        return super().forward(numeric.nan_to_num(0.0).unsqueeze(1))
""",
        command=["--arguments", '{"n_features": 3}', "--classes", "normal", "fraud", "--logits", "1"],
        own=lambda network, x: network(x.unsqueeze(1)).sigmoid()[:, 0],
    ),
    "labels in bfloat16": Kind(
        published=VALUES,
        arguments={"hidden": 6, "outputs": 3},
        save=half,
        owner=FILLED,
        command=["--arguments", '{"hidden": 6, "outputs": 3}', "--labels", "a", "b", "c"],
        own=lambda network, x: network(x).sigmoid()[:, 1],
        column="prob_label_1",
    ),
    "a value, Lightning": Kind(
        published=VALUES,
        arguments={"hidden": 6, "outputs": 1},
        save=lightning,
        owner=FILLED,
        command=["--arguments", '{"hidden": 6, "outputs": 1}', "--regression"],
        own=lambda network, x: network(x)[:, 0],
        column="prediction",
    ),
    "values by name": Kind(
        published=VALUES,
        arguments={"hidden": 6, "outputs": 2},
        save=bare,
        owner=FILLED,
        command=["--arguments", '{"hidden": 6, "outputs": 2}', "--targets", "price", "area"],
        own=lambda network, x: network(x)[:, 1],
        column="prediction_area",
    ),
    "quantiles": Kind(
        published=VALUES,
        arguments={"hidden": 6, "outputs": 3},
        save=bare,
        owner=FILLED,
        command=["--arguments", '{"hidden": 6, "outputs": 3}', "--quantiles", "0.1", "0.5", "0.9"],
        own=lambda network, x: network(x)[:, 2],
        column="quantile_90",
    ),
    "an embedding": Kind(
        published=VALUES,
        arguments={"hidden": 6, "outputs": 5},
        save=parallel,
        owner=FILLED,
        command=["--arguments", '{"hidden": 6, "outputs": 5}', "--vector", "5"],
        own=lambda network, x: network(x).norm(dim=1),
        column="norm",
    ),
    "many classes, the likeliest of them": Kind(
        published=VALUES,
        arguments={"hidden": 6, "outputs": 60},
        save=bare,
        owner=FILLED,
        command=["--arguments", '{"hidden": 6, "outputs": 60}', "--classes", *map(str, range(60)), "--top", "3"],
        own=lambda network, x: network(x).softmax(dim=1).amax(dim=1),
        column="prediction_proba",
    ),
    "recurrent, over one step of all features": Kind(
        published=LSTM,
        arguments=RECURRENT,
        save=bare,
        owner="""
class Net(Published):
    def forward(self, numeric):
        return super().forward(numeric.nan_to_num(0.0).unsqueeze(1))
""",
        command=[*LAYERS, "--classes", "normal", "fraud"],
        own=lambda network, x: network(x.unsqueeze(1)).softmax(dim=1)[:, 1],
    ),
    "recurrent, over the features, in the owner's wrapper": Kind(
        published=GRU,
        arguments={"hidden": 8},
        save=parallel,
        owner="""
class Net(nn.Module):
    def __init__(self, mean, scale):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("scale", torch.tensor(scale), persistent=False)
        self.net = Published(hidden=8)
    def forward(self, numeric):
        scaled = (numeric.nan_to_num(0.0) - self.mean) / self.scale
        return self.net(scaled.unsqueeze(2))
""",
        command=["--arguments", '{"mean": [0.0, 5.0, 2.0], "scale": [5.0, 4.0, 1.5]}', "--classes", "no", "yes"],
        own=lambda network, x: network(((x - MEAN) / SCALE).unsqueeze(2)).softmax(dim=1)[:, 1],
        says="weights: prefix module. removed, prefix net. added\n",
    ),
}


def prepared(tiny: TinyProject, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A pipeline with the published network, its checkpoint and a sample; the command that converts it."""
    monkeypatch.setattr(loader, "PIPELINES", tiny.packages)  # where the command looks
    monkeypatch.setenv("BATCH_SCORING_DATA", tiny.data_root)
    tiny.write_code(network=kind.published + kind.owner)
    tiny.spec["features"] |= {"numeric": FEATURES, "categorical": []}
    tiny.spec["model"]["network"] = "network:Net" if kind.owner else "network:Published"
    tiny.write_spec()
    sample = tiny.rows(ROWS).append_column("dt", pa.array([date(2024, 2, 1)] * ROWS))
    pq.write_table(sample, tiny.folder / "sample.parquet")
    kind.save(published(tiny, kind), tiny.folder / "published.pt")
    files = ["--checkpoint", str(tiny.folder / "published.pt"), "--sample", str(tiny.folder / "sample.parquet")]
    return ["checkpoint", "--pipeline", tiny.name, *files, *kind.command, "--version", "v7"]


def published(tiny: TinyProject, kind: Kind) -> torch.nn.Module:
    torch.manual_seed(3)
    network: torch.nn.Module = tiny.pipeline.load("network:Published")(**kind.arguments)
    for name, value in network.state_dict().items():  # as after training, not as built
        if "running_mean" in name:
            value.normal_()
        elif "running_var" in name:
            value.uniform_(0.5, 2.0)
    return network.eval()


def own_scores(tiny: TinyProject, kind: Kind) -> np.ndarray:
    """The publisher's scores of the first rows, without any of our code."""
    rows = tiny.rows(ROWS).select(FEATURES).to_pandas().fillna(0.0)
    network = published(tiny, kind)
    if kind.save is half:
        network.half().float()
    with torch.inference_mode():
        scores: np.ndarray = kind.own(network, torch.tensor(rows.to_numpy(np.float32))).numpy()
    return scores


@pytest.mark.parametrize("kind", KINDS)
def test_a_published_network_comes_in_by_one_command(
    kind: str, tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = KINDS[kind]
    assert len(found.owner.strip().splitlines()) <= 10
    command, out = prepared(tiny, found, monkeypatch), tiny.folder / "models/v7"
    assert main([*command, "--out", str(out)]) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert said.out.startswith(f"{out}: sha256 ") and found.says in said.out and said.err == ""
    model = load_bundle(open_folder(str(out)), ModelCode.of(tiny.pipeline))
    batch = tiny.rows(ROWS).combine_chunks().to_batches()[0]
    scored = Scorer(model).score_batch(batch).scores.column(found.column).to_numpy()
    assert np.abs(scored - own_scores(tiny, found)).max() <= 1e-6
    assert scored.std() > 0.003


NOTES = """
import pandera.pandas as pa

class Rows(pa.DataFrameModel):
    id: str
    note: str = pa.Field(nullable=True)
"""

READER = """
import torch
from torch import nn

class Published(nn.Module):
    def __init__(self, vocab_size, embed_dim, num_class):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim, padding_idx=0)
        self.fc = nn.Sequential(nn.Linear(embed_dim, 8), nn.ReLU(), nn.Linear(8, num_class))

    def forward(self, text):                      # one text: (length,)
        return self.fc(self.embedding(text).mean(dim=0, keepdim=True))

class Net(Published):
    def forward(self, tokens):
        known = (tokens != 0).unsqueeze(2)
        return self.fc((self.embedding(tokens) * known).sum(dim=1) / known.sum(dim=1))
"""

WORDS = ["[PAD]", "[UNK]", "late", "train", "refund", "please", "broken", "thanks", "again", "never"]


def notes(count: int) -> list[str]:
    random = np.random.default_rng(5)
    return [" ".join(random.choice([*WORDS[2:], "zebra"], random.integers(1, 40))) for _ in range(count)]


@pytest.fixture
def texts(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command for a published network of texts; the publisher splits at blanks and has a list of words."""
    monkeypatch.setattr(loader, "PIPELINES", tiny.packages)
    tiny.write_code(schema=NOTES, network=READER)
    tiny.spec["features"] = {"schema": "schema:Rows", "text": ["note"]}
    tiny.write_spec()
    sample = pa.table({"id": [f"k{row}" for row in range(300)], "note": notes(300)})
    pq.write_table(sample.append_column("dt", pa.array([date(2024, 2, 1)] * 300)), tiny.folder / "sample.parquet")
    training_run(reader(tiny), tiny.folder / "published.pt")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.save(str(tiny.folder / "tokenizer.json"))
    files = ["--checkpoint", str(tiny.folder / "published.pt"), "--sample", str(tiny.folder / "sample.parquet")]
    arguments = json.dumps({"vocab_size": len(WORDS), "embed_dim": 6, "num_class": 3})
    command = ["checkpoint", "--pipeline", tiny.name, *files, "--arguments", arguments, "--version", "v7"]
    return [*command, "--classes", "billing", "travel", "other"]


def reader(tiny: TinyProject) -> torch.nn.Module:
    torch.manual_seed(3)
    network: torch.nn.Module = tiny.pipeline.load("network:Published")(len(WORDS), 6, 3)
    return network.eval()


def test_a_published_network_of_texts_comes_in_by_one_command(
    texts: list[str], tiny: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    out, given = tiny.folder / "models/v7", ["--tokenizer", str(tiny.folder / "tokenizer.json")]
    assert main([*texts, *given, "--text", '{"longest": 64}', "--out", str(out)]) == 0, capsys.readouterr().err
    model = load_bundle(open_folder(str(out)), ModelCode.of(tiny.pipeline))
    assert model.manifest.text is not None
    assert (model.manifest.text.longest, model.manifest.text.unknown, model.manifest.text.padding) == (64, 1, 0)
    batch = pa.RecordBatch.from_pydict({"id": [f"k{row}" for row in range(300)], "note": notes(300)})
    scored = Scorer(model).score_batch(batch).scores.column("prob_class_1").to_numpy()
    known, network = {word: index for index, word in enumerate(WORDS)}, reader(tiny)
    with torch.inference_mode():
        ids = [torch.tensor([known.get(word, 1) for word in note.split()]) for note in notes(300)]
        own = torch.cat([network(each).softmax(dim=1)[:, 1] for each in ids]).numpy()
    assert np.abs(scored - own).max() <= 1e-6 and scored.std() > 0.003


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "features.text names note: give --tokenizer tokenizer.json"),
        (["--tokenizer", "TOKENIZER"], """the tokenizer does not say longest: --text '{"longest": …}'"""),
        (["--tokenizer", "TOKENIZER", "--text", '{"longest": 0}'], "--text: longest: Input should be greater than or"),
        (["--tokenizer", "TOKENIZER", "--text", '{"longest": 9, "unknown": 0}'], "unknown and padding are both 0"),
        (["--tokenizer", "TOKENIZER", "--text", '{"length": 9, "longest": 9}'], "--text: length: Extra inputs"),
        (["--tokenizer", "SAMPLE", "--text", '{"longest": 9}'], "tokenizer.json is no tokenizer: "),
        (["--tokenizer", "LARGE"], "LARGE has 2,147,483,648 bytes; expected a tokenizer.json of a few megabytes"),
    ],
)
def test_what_a_network_of_texts_still_needs_is_said(
    texts: list[str], options: list[str], says: str, tiny: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tiny.folder / "LARGE").open("wb") as large:
        large.truncate(2**31)  # takes no space
    names = {"TOKENIZER": "tokenizer.json", "SAMPLE": "sample.parquet", "LARGE": "LARGE"}
    given = [str(tiny.folder / names[each]) if each in names else each for each in options]
    assert says in refusal([*texts, *given], tiny.folder / "models/v7", capsys)


FEATURES_MADE = """
import pyarrow.compute as pc

def fit(rows):
    return {"middle": pc.mean(rows["x"]).as_py()}

def transform(rows, fitted):
    return {"centred": pc.subtract(rows["x"], fitted["middle"])}
"""


@pytest.mark.parametrize("state", ["found", "missing", "empty", "broken"])
def test_what_a_transform_has_learned_comes_from_a_folder(
    state: str, tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = KINDS["values by name"]
    command, out = prepared(tiny, kind, monkeypatch), tiny.folder / "models/v7"
    (tiny.folder / "features.py").write_text(FEATURES_MADE)
    tiny.spec["features"] |= {"transform": "features:transform", "numeric": ["centred", "y", "n"]}
    tiny.write_spec()
    (tiny.folder / "learned").mkdir()
    if state in ("found", "broken"):
        (tiny.folder / "learned/fitted.json").write_text('{"middle": 0.25}' if state == "found" else "{")
    folder = [] if state == "missing" else ["--fitted", str(tiny.folder / "learned")]
    if state != "found":
        says = {"missing": "middle", "empty": "has no fitted.json, fitted.saf", "broken": "fitted.json"}[state]
        assert says in refusal([*command, *folder], out, capsys)
        return
    assert main([*command, *folder, "--out", str(out)]) == 0, capsys.readouterr().err
    rows = pq.read_table(out / "golden.parquet")
    assert np.allclose(rows["engineered.centred"].to_numpy(), rows["x"].to_numpy() - 0.25)
    matrix = np.column_stack([rows["x"].to_numpy() - 0.25, rows["y"].fill_null(0.0).to_numpy(), rows["n"].to_numpy()])
    with torch.inference_mode():
        own = published(tiny, kind)(torch.tensor(matrix, dtype=torch.float32))[:, 1].numpy()
    assert np.abs(rows["output_1"].to_numpy() - own).max() <= 1e-6


def refusal(command: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*command, "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and not out.exists()
    return said.err


@pytest.mark.parametrize(
    ("changes", "without", "says"),
    [
        # what the file knows is offered, ready to be pasted
        ({"save": lightning}, "--arguments", """Net needs input_dim: name --arguments '{"input_dim": 3}'"""),
        ({"owner": ""}, "", "missing values (y in 7 of 64) are NaN in numeric: forward has to fill them"),
        (
            {"published": LSTM, "owner": FILLED, "arguments": RECURRENT, "command": [*LAYERS, "--classes", "a", "b"]},
            "",
            "the network raises IndexError: too many indices for tensor of dimension 2",
        ),
        ({"command": ["--arguments", '{"input_dim": 4}', "--classes", "a", "b"]}, "", "Net expects (16, 4)"),
        (
            {"command": ["--arguments", '{"input_dim": 3, "hidden_dims": [16]}', "--classes", "a", "b"]},
            "",
            "does not have",
        ),
        (
            {"command": ["--arguments", '{"width": 3}', "--classes", "a", "b"]},
            "",
            "unexpected keyword argument 'width'",
        ),
        ({"published": FRAUD, "arguments": ONE_IN, "command": [*ONE, "--classes", "a", "b"]}, "", "to have 1 channels"),
        ({"published": CHURN}, "", "expected (64, 2): a row for each row"),
        (
            {"published": CHURN, "command": ["--arguments", WIDE, "--classes", "a", "b", "--logits", "1"]},
            "",
            "or say outputs: probabilities",
        ),
        ({"command": ["--arguments", WIDE, "--classes", "a", "b", "c"]}, "", "expected (64, 3)"),
    ],
)
def test_what_is_still_to_be_written_is_said(
    changes: dict[str, Any],
    without: str,
    says: str,
    tiny: TinyProject,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind = replace(KINDS["batch norm, dropout, a list of widths, DataParallel"], **changes)
    command = prepared(tiny, kind, monkeypatch)
    if without:
        place = command.index(without)
        del command[place : place + 2]
    assert says in refusal(command, tiny.folder / "models/v7", capsys)


def test_a_day_is_scored_with_it(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = KINDS["a sigmoid inside, squeezed, DataParallel"]
    command, out = prepared(tiny, kind, monkeypatch), Path(tiny.data_root, tiny.name, "models/v7")
    assert main([*command, "--out", str(out)]) == 0, capsys.readouterr().err
    tiny.spec["model"]["bundle"] = f"{tiny.name}/models/v7"
    tiny.write_spec()
    tiny.land(DAY, tiny.rows(ROWS))
    assert tiny.run(raise_on_error=False).success
    scored = tiny.read().sort_by("id")
    assert set(scored["model_version"].to_pylist()) == {"v7"} and scored.num_rows == ROWS
    assert np.abs(scored["prob_class_1"].to_numpy() - own_scores(tiny, kind)).max() <= 1e-6
