"""`batch-scoring score` from and to S3: nothing is seen before it is whole, whatever the store does."""

import io
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_scoring.cli.score import score_files as adhoc
from batch_scoring.cli.score.score_files import ScoreRequest
from batch_scoring.storage.folders import staged_files
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.reliability.proxy import Fault
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import TinyProject

pytestmark = pytest.mark.s3

SCORES = ["id", "prediction", "prediction_proba", "prob_class_0", "prob_class_1"]
BAD = "id,x,y,n,c\nbad,9999,1,1,red\n" + "".join(f"k{n},{n}.5,1,1,red\n" for n in range(9))


@pytest.fixture
def bucket(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """With an input of ten rows, one of them bad; scratch files and locks are the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    name = store.new_bucket()
    open_folder(f"s3://{name}/in").put("a.csv", BAD.encode())
    return name


def score(tiny: TinyProject, source: str, target: str, **options: bool) -> tuple[int, str]:
    """The exit code, and what stands on standard error."""
    err = io.StringIO()
    return adhoc.run(tiny.pipeline, ScoreRequest(source, target, **options), io.StringIO(), err), err.getvalue()


def objects(store: Store, bucket: str) -> dict[str, str]:
    """ETags by key, but for the input; no upload is left behind."""
    client = store.client_of_moto()
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    listed = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {item["Key"]: item["ETag"] for item in listed if not item["Key"].startswith("in/")}


def test_a_folder_on_s3_is_scored_as_a_local_one_and_replaced_only_with_overwrite(
    tiny: TinyProject, store: Store, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text(BAD)
    assert score(tiny, f"s3://{bucket}/in", f"s3://{bucket}/out/x.parquet") == (0, "")
    assert score(tiny, str(tmp_path / "in"), str(tmp_path / "x.parquet")) == (0, "")
    found = pq.read_table(pa.BufferReader(open_folder(f"s3://{bucket}/out").read("x.parquet")))
    assert found.select(SCORES).equals(pq.read_table(tmp_path / "x.parquet").select(SCORES)) and found.num_rows == 9
    before = objects(store, bucket)
    assert before.keys() == {"out/x.parquet", "out/x.quarantine.parquet"}
    code, said = score(tiny, f"s3://{bucket}/in/a.csv", f"s3://{bucket}/out/x.parquet")
    assert code == 2 and "exists already; nothing is written" in said and objects(store, bucket) == before
    open_folder(f"s3://{bucket}/in").put("a.csv", BAD.replace("9999", "99").encode())
    assert score(tiny, f"s3://{bucket}/in/a.csv", f"s3://{bucket}/out/x.parquet", overwrite=True) == (0, "")
    assert objects(store, bucket).keys() == {"out/x.parquet"}
    assert score(tiny, f"s3://{bucket}/in/", f"s3://{bucket}/folder") == (0, "")
    assert {"folder/predictions.parquet", "folder/summary.json"} < objects(store, bucket).keys()


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("s3://{bucket}/in/x.csv", "lies in --input"),
        ("s3://{bucket}/x.txt", "unknown kind of file"),
        ("s3://{bucket}-is-not-there/x.csv", "there is no s3://{bucket}-is-not-there/x.csv"),
    ],
)
def test_an_output_that_cannot_be_is_one_line(
    tiny: TinyProject, store: Store, bucket: str, target: str, says: str
) -> None:
    code, said = score(tiny, f"s3://{bucket}/in", target.format(bucket=bucket))
    assert code in (1, 2) and says.format(bucket=bucket) in said and said.count("\n") == 1
    assert objects(store, bucket) == {}


def test_a_store_that_refuses_to_write_is_told_before_the_work(tiny: TinyProject, store: Store, bucket: str) -> None:
    store.proxy.faults = [Fault("403", r"^POST .*\?uploads")]
    asked = store.proxy.statuses["GET", 206]
    code, said = score(tiny, f"s3://{bucket}/in", f"s3://{bucket}/out/x.csv")
    assert code == 1 and "access denied" in said and said.endswith("; nothing is written\n")
    assert store.proxy.statuses["GET", 206] == asked, "no row was read"


@pytest.mark.parametrize("replaces", [False, True])
def test_an_upload_that_breaks_off_shows_nothing_and_leaves_the_old_output(
    tiny: TinyProject, store: Store, bucket: str, replaces: bool
) -> None:
    if replaces:
        assert score(tiny, f"s3://{bucket}/in", f"s3://{bucket}/out/x.csv") == (0, "")
    before = objects(store, bucket)
    store.proxy.faults = [Fault("403", r"^PUT .*x\.csv.*partNumber")]
    code, said = score(tiny, f"s3://{bucket}/in", f"s3://{bucket}/out/x.csv", overwrite=replaces)
    assert code == 1 and "access denied" in said
    assert objects(store, bucket) == before and len(before) == (2 if replaces else 0)


def test_of_a_new_output_that_cannot_be_completed_no_quarantine_stays(
    tiny: TinyProject, store: Store, bucket: str
) -> None:
    store.proxy.faults = [Fault("403", r"^POST .*x\.csv.*uploadId")]
    code, said = score(tiny, f"s3://{bucket}/in", f"s3://{bucket}/out/x.csv")
    assert code == 1 and "access denied" in said and objects(store, bucket) == {}


def test_of_an_old_output_that_cannot_be_replaced_whole_it_is_said_what_is_written(
    tiny: TinyProject, store: Store, bucket: str
) -> None:
    assert score(tiny, f"s3://{bucket}/in", f"s3://{bucket}/out/x.csv") == (0, "")
    before = objects(store, bucket)
    store.proxy.faults = [Fault("403", r"^POST .*x\.csv.*uploadId")]
    code, said = score(tiny, f"s3://{bucket}/in", f"s3://{bucket}/out/x.csv", overwrite=True)
    there = f"s3://{bucket}/out/x.quarantine.csv is written, s3://{bucket}/out/x.csv is not\n"
    assert code == 1 and "access denied" in said and said.endswith(there)
    assert objects(store, bucket)["out/x.csv"] == before["out/x.csv"]


def test_a_role_that_may_not_delete_can_overwrite(tiny: TinyProject, store: Store, bucket: str) -> None:
    assert score(tiny, f"s3://{bucket}/in", f"s3://{bucket}/out/x.csv") == (0, "")
    before = objects(store, bucket)
    open_folder(f"s3://{bucket}/in").put("a.csv", BAD.replace("9999", "99").encode())
    store.proxy.faults = [Fault("403", r"^DELETE .*quarantine")]
    code, said = score(tiny, f"s3://{bucket}/in/a.csv", f"s3://{bucket}/out/x.csv", overwrite=True)
    assert code == 0 and "x.quarantine.csv belongs to an older output and cannot be removed, remove it by hand" in said
    assert objects(store, bucket)["out/x.csv"] != before["out/x.csv"]


def test_a_lost_answer_to_the_last_request_is_no_failure(tiny: TinyProject, store: Store, bucket: str) -> None:
    store.proxy.faults = [Fault("lose answer", r"^POST .*uploadId", times=1)]
    assert score(tiny, f"s3://{bucket}/in", f"s3://{bucket}/out/x.csv") == (0, "")
    assert objects(store, bucket).keys() == {"out/x.csv", "out/x.quarantine.csv"}


def test_an_object_that_came_meanwhile_stands(
    tiny: TinyProject, store: Store, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = staged_files._Upload.finish

    def meanwhile(self: staged_files._Upload) -> None:
        finish(self)
        store.client_of_moto().put_object(Bucket=bucket, Key="out/x.csv", Body=b"somebody else's")

    monkeypatch.setattr(staged_files._Upload, "finish", meanwhile)
    code, said = score(tiny, f"s3://{bucket}/in", f"s3://{bucket}/out/x.csv")
    assert code == 2 and "was written by another process meanwhile" in said
    assert open_folder(f"s3://{bucket}/out").read("x.csv") == b"somebody else's"
    assert objects(store, bucket).keys() == {"out/x.csv"}, "the quarantine was taken back"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_a_part_is_on_its_way_leaves_nothing(
    tiny: TinyProject, store: Store, bucket: str, tmp_path: Path, number: signal.Signals
) -> None:
    store.proxy.faults = [Fault("delay", r"^PUT .*partNumber", seconds=0.5, times=1)]
    code = (
        "import sys; from batch_scoring.runtime import signals; signals.watch('batch-scoring')\n"
        "import batch_scoring.pipelines as p; p.__path__.append(sys.argv[1])\n"
        "from batch_scoring.cli.score.score_files import ScoreRequest, run\n"
        "from batch_scoring_tests.reliability.processes import Site\n"
        "site = Site(*sys.argv[2:0:-1], sys.argv[3])\n"
        "sys.exit(run(site.pipeline(), ScoreRequest(*sys.argv[4:]), sys.stdout, sys.stderr))\n"
    )
    where = [str(tiny.packages), tiny.name, tiny.data_root, f"s3://{bucket}/in", f"s3://{bucket}/out/x.csv"]
    with subprocess.Popen([sys.executable, "-c", code, *where], stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while not store.proxy.faults[0].hits and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (128 + number, "batch-scoring: interrupted; nothing is written\n")
    assert objects(store, bucket) == {} and not list(tmp_path.glob("batch_scoring_*"))
