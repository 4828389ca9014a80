"""The subcommand `checkpoint`."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batch_scoring.cli.main import main
from batch_scoring.config.loader import PROJECT

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
