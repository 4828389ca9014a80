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
    assert capsys.readouterr().out.startswith(f"{tmp_path}/b: sha256 ")
    manifest = (tmp_path / "b/bundle.json").read_text()
    assert '"stays"' in manifest and '"leaves"' in manifest and "0.7" in manifest and "0.8" in manifest


def test_what_cannot_become_a_bundle_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [*COMMON, "--classes", "stays", "leaves"]

    def refused(*options: str) -> str:
        assert main([*common, *options]) == 1
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("batch-scoring: ") and said.err.count("\n") == 1
        return said.err

    (tmp_path / "b").mkdir()
    (tmp_path / "b/bundle.json").write_text("{}")
    assert f"{tmp_path}/b holds a bundle already" in refused(*CHECKPOINT, "--out", str(tmp_path / "b"))
    assert (tmp_path / "b/bundle.json").read_text() == "{}"
    out = ["--out", str(tmp_path / "c")]
    wrong = pq.read_table(MODELS / "sample.parquet").select(["id", "dt"]).slice(0, 10)
    pq.write_table(wrong.append_column("prob_class_1", [[0.999] * 10]), tmp_path / "e")
    assert "10 of 10 rows are not as expected: id " in refused(*CHECKPOINT, *out, "--expected", str(tmp_path / "e"))
    missing = f"{tmp_path}/nowhere.parquet does not exist; expected a Parquet file"
    assert missing in refused(*CHECKPOINT, *out, "--expected", str(tmp_path / "nowhere.parquet"))
    assert "no.pt cannot be read: No such file" in refused("--checkpoint", str(tmp_path / "no.pt"), *out)
    assert not (tmp_path / "c").exists()


def test_a_metric_without_a_number_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMON, *CHECKPOINT, "--classes", "a", "b", "--metric", "auc=high", "--out", str(tmp_path)]) == 2
    assert "'auc=high' is not NAME=VALUE with a number" in capsys.readouterr().err
