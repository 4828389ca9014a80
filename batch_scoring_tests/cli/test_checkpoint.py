"""The subcommand `checkpoint`."""

import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import safetensors.torch

from batch_scoring.cli.main import main
from batch_scoring.config import loader
from batch_scoring.config.loader import PROJECT
from batch_scoring_tests.tiny import TinyProject

MODELS = PROJECT / "data/customer_churn/models"
COMMON = ["checkpoint", "--pipeline", "customer_churn", "--sample", str(MODELS / "sample.parquet")]
CHECKPOINT = ["--checkpoint", str(MODELS / "churn.pt")]


@pytest.mark.parametrize("classes", ["--classes stays leaves", "--classes stays --classes leaves", "--cl stays leaves"])
def test_a_checkpoint_becomes_a_bundle(classes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = ["--metric", "auc=0.7", "accuracy=0.8"]
    assert main([*COMMON, *classes.split(), *metrics, *CHECKPOINT, "--out", str(tmp_path / "b")]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{tmp_path}/b: sha256 ")
    assert said.out.endswith("\nnot compared with the training code's own outputs: no --expected\n")
    assert said.err == "batch-scoring: the folder is b, the version v1: scored rows will say v1\n"
    manifest = (tmp_path / "b/bundle.json").read_text()
    assert '"stays"' in manifest and '"leaves"' in manifest and "0.7" in manifest and "0.8" in manifest


def test_it_says_how_many_rows_were_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*COMMON, "--classes", "stays", "leaves", *CHECKPOINT]
    assert main([*command, "--out", str(tmp_path / "v1")]) == 0
    outputs = pq.read_table(tmp_path / "v1/reference.parquet").select(["id", "dt", "prob_class_1"]).slice(0, 1_500)
    pq.write_table(outputs, tmp_path / "e")
    (tmp_path / "other").mkdir()
    assert main([*command, "--expected", str(tmp_path / "e"), "--out", str(tmp_path / "other/v1")]) == 0
    said = capsys.readouterr()
    assert said.out.endswith(f"\n1,500 rows compared with {tmp_path}/e, all agree\n") and said.err == ""


def test_what_cannot_become_a_bundle_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [*COMMON, "--classes", "stays", "leaves"]

    def refused(*options: str, lines: int = 1) -> str:
        assert main([*common, *options]) == 1
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("batch-scoring: ") and said.err.count("\n") == lines
        return said.err

    (tmp_path / "b").mkdir()
    (tmp_path / "b/bundle.json").write_text("{}")
    assert f"{tmp_path}/b holds a bundle already" in refused(*CHECKPOINT, "--out", str(tmp_path / "b"))
    assert (tmp_path / "b/bundle.json").read_text() == "{}"
    out = ["--out", str(tmp_path / "c")]
    wrong = pq.read_table(MODELS / "sample.parquet").select(["id", "dt"]).slice(0, 10)
    pq.write_table(wrong.append_column("prob_class_1", [[0.999] * 10]), tmp_path / "e")
    message = refused(*CHECKPOINT, *out, "--expected", str(tmp_path / "e"), lines=12)
    assert "expected: 10 of 10 rows are not as expected:\n  id " in message and "\n  and 5 more\n" in message
    pq.write_table(wrong, tmp_path / "e")
    message = refused(*CHECKPOINT, *out, "--expected", str(tmp_path / "e"))
    assert message.startswith(
        f"batch-scoring: {MODELS}/churn.pt: {tmp_path}/c: expected: has the columns id, dt; expec"
    )
    missing = f"{tmp_path}/nowhere.parquet does not exist; expected a Parquet file"
    assert missing in refused(*CHECKPOINT, *out, "--expected", str(tmp_path / "nowhere.parquet"))
    assert "no.pt cannot be read: No such file" in refused("--checkpoint", str(tmp_path / "no.pt"), *out)
    assert not (tmp_path / "c").exists()


def test_a_metric_without_a_number_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMON, *CHECKPOINT, "--classes", "a", "b", "--metric", "auc=high", "--out", str(tmp_path)]) == 2
    assert "'auc=high' is not NAME=VALUE with a number" in capsys.readouterr().err


@pytest.fixture
def converted(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The command for a network with categories, from a safetensors file and a sample in CSV."""
    monkeypatch.setattr(loader, "PIPELINES", tiny.packages)  # where the command looks
    network = tiny.pipeline.load("network:Net")(numeric=3, words=3, outputs=2)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "net.safetensors")
    sample = tiny.rows(200).append_column("dt", pa.array([date(2024, 3, 1)] * 200))
    pyarrow.csv.write_csv(sample, tmp_path / "sample.csv")
    files = ["--checkpoint", str(tmp_path / "net.safetensors"), "--sample", str(tmp_path / "sample.csv")]
    return ["checkpoint", "--pipeline", tiny.name, *files, "--classes", "no", "yes", "--out", str(tmp_path / "v1")]


ARGUMENTS = ["--arguments", '{"numeric": 3, "words": 3, "outputs": 2}', "--version", "v1"]
WORDS = ["--vocabulary", '{"c": ["red", "green", "blue"]}']


def test_categories_come_in_with_their_vocabulary(
    converted: list[str], tiny: TinyProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*converted, *ARGUMENTS, *WORDS]) == 0, capsys.readouterr().err
    manifest = json.loads((tmp_path / "v1/bundle.json").read_text())
    assert manifest["categorical"] == {"c": ["red", "green", "blue"]} and manifest["version"] == "v1"
    assert manifest["arguments"] == {"numeric": 3, "words": 3, "outputs": 2}
    assert capsys.readouterr().out.startswith(f"{tmp_path}/v1: sha256 ")


def test_arguments_and_vocabularies_may_be_files(converted: list[str], tmp_path: Path) -> None:
    (tmp_path / "arguments.json").write_text(ARGUMENTS[1])
    (tmp_path / "words.json").write_text(WORDS[1])
    files = ["--arguments", str(tmp_path / "arguments.json"), "--vocabulary", str(tmp_path / "words.json")]
    assert main([*converted, *files, "--version", "v1"]) == 0


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (ARGUMENTS, 1, """--vocabulary FILE.json with {"c": ["…", …]}, the words in the order of their codes from 1"""),
        ([*ARGUMENTS, "--vocabulary", '{"c": ["red"], "d": ["x"]}'], 1, "the vocabulary has d, which features.categ"),
        ([*ARGUMENTS, "--vocabulary", '{"c": ["red", "red"]}'], 1, "'red' occurs twice"),
        ([*ARGUMENTS, "--vocabulary", '{"c": "red"}'], 2, """c is not a list of texts; expected {"c": ["…", …]}"""),
        ([*ARGUMENTS, "--vocabulary", '{"c": [1, 2]}'], 2, "c is not a list of texts"),
        ([*ARGUMENTS, "--vocabulary", "nowhere.json"], 2, "'nowhere.json' is neither a JSON object nor a file"),
        (["--arguments", "{no}"], 2, "'{no}' is not JSON: "),
        (["--arguments", '{"a": 1} 2'], 2, "is not JSON: "),
        ([*WORDS, "--version", "v1"], 1, """Net needs numeric, words, outputs: name --arguments '{"numeric": …"""),
        ([*WORDS, *ARGUMENTS[:2]], 1, "has no version; add it to the dict that torch.save writes, or name it with --v"),
        ([*WORDS, *ARGUMENTS, "--regression"], 2, "--classes, --regression: expected one of them"),
        ([*WORDS, *ARGUMENTS, "--entry", "model"], 1, "it has no tensors in the entry model"),
        ([*WORDS, *ARGUMENTS, "--prefix", "model."], 1, "it has no tensors whose names begin with model."),
    ],
)
def test_what_is_missing_is_said(
    converted: list[str],
    options: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*converted, *options]) == code
    said = capsys.readouterr()
    assert says in said.err and said.out == "" and not (tmp_path / "v1").exists()
    assert code == 2 or said.err.count("\n") == 1
