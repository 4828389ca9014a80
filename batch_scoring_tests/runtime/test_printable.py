"""What a customer's file says reaches no terminal, log, message or shell as anything but text."""

import contextlib
import io
import json
import sqlite3
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_shared.serdes import serialize_value
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_scoring.cli.doctor import delta_tables, instance
from batch_scoring.cli.doctor.probe import Site
from batch_scoring.cli.main import main
from batch_scoring.config import loader as pipelines
from batch_scoring.defs.execution import sqlite_databases
from batch_scoring.runtime.printable import (
    clean,
    cleaned,
    guarded,
    one_line,
    printable,
    shell_word,
    some,
    without_class,
)
from batch_scoring_tests.tiny import DAY, TinyProject

EVIL = "\x1b]0;owned\x07\x1b[2J\u202egnp.\x9b31m\u2066x"
OBEYED = ("\x1b]0", "\x07", "\u202e", "\x9b", "\u2066", "\r")
SHOWN = r"\u001b]0;owned\u0007\u001b[2J\u202egnp.\u009b31m\u2066x"

TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("\x00\x1b\x7f\x9b\r\u202e\u200d\ufeff\U000e0001\u2028"))


def is_plain(text: str) -> bool:
    return not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text if c not in "\n\t")


@given(TEXT | st.text(st.characters(categories=["Cs", "Cf", "Cc", "L"])))
def test_what_a_terminal_obeys_is_replaced_and_nothing_else(text: str) -> None:
    shown = printable(text)
    assert is_plain(shown) and printable(shown) == shown
    assert is_plain(text) <= (shown == text)
    assert "\n" not in one_line(text) and "\t" not in one_line(text)


@given(st.dictionaries(TEXT, TEXT))
def test_a_document_that_is_printed_is_the_same_document(document: dict[str, str]) -> None:
    out = io.StringIO()
    json.dump(document, guarded(out), ensure_ascii=False)
    assert json.loads(out.getvalue()) == document and is_plain(out.getvalue())


def test_a_text_is_shown_by_what_it_is() -> None:
    assert printable(EVIL) == SHOWN and one_line("a\nb\tc") == r"a\u000ab\u0009c"
    assert printable("\U000e0001") == r"\udb40\udc01" and printable("Zoë 雨 🙂\n\t") == "Zoë 雨 🙂\n\t"


def test_only_a_class_of_ours_is_left_out_of_a_message() -> None:
    assert without_class("batch_scoring.errors.ContractError: a.csv: column x") == "a.csv: column x"
    for kept in ("ValueError: batch_scoring.errors.X: y", "torch.OutOfMemoryError: no", "batch_scoring: no pipeline"):
        assert without_class(kept) == kept


def test_an_error_is_cleaned_with_all_that_it_comes_from() -> None:
    error = dg.Failure(description=EVIL)
    error.__cause__ = ValueError(EVIL)
    error.__cause__.__context__ = KeyError(1, EVIL)
    clean(error)
    assert error.description == SHOWN and str(error.__cause__) == SHOWN
    assert error.__cause__.__context__.args == (1, SHOWN)


def test_what_a_sensor_raises_is_printable() -> None:
    with pytest.raises(OSError, match="gnp") as caught, cleaned():
        raise OSError(f"s3://bucket/landing/{EVIL}: no answer")
    assert is_plain(str(caught.value))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=8))
def test_a_shell_reads_a_word_as_it_was(words: list[str]) -> None:
    words = [*words, "it's", 'a "b" c', "a\nb", EVIL, "$(touch x)", "\\", ""]
    command = f"printf '%s\\0' {' '.join(map(shell_word, words))}"
    assert "\n" not in command and is_plain(command)
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == words


# the whole way


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TinyProject, str]]:
    """All that Dagster keeps of a day with such cells, and of another whose file, so named, lacks a column."""
    tiny = TinyProject(tmp_path_factory.mktemp("told"))
    head, rows = "id,x,y,n,c\n", "".join(f"k{n},1.5,1,1,{EVIL}\n" for n in range(40))
    tiny.land(DAY, f"{head}{rows}bad{EVIL},{EVIL},1,1,red\n".encode(), name="a.csv")
    tiny.land("2024-03-05", f"id,x,y,n,{EVIL}\na,1,1,1,red\n".encode(), name=f"b{EVIL}.csv")
    with dg.DagsterInstance.ephemeral() as instance:
        assert tiny.run(DAY, instance=instance).success
        assert not tiny.run("2024-03-05", instance=instance, raise_on_error=False).success
        yield tiny, "\n".join(part for run in instance.get_runs() for part in parts(instance, run.run_id))


def parts(instance: dg.DagsterInstance, run_id: str) -> Iterator[str]:
    """Every text of a run's log, as it stands."""
    for entry in instance.all_logs(run_id):
        yield from texts(json.loads(serialize_value(entry)))  # as it is stored


def texts(value: Any) -> Iterator[str]:  # noqa: ANN401
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from texts([*value, *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def test_nothing_of_it_is_in_dagsters_events(told: tuple[TinyProject, str]) -> None:
    _, events = told
    assert SHOWN in events, "the category that the model does not know, and the file's name"
    assert not [line for line in events.splitlines() if any(character in line for character in OBEYED)]


def test_nothing_of_it_is_in_the_values_of_the_quarantine(told: tuple[TinyProject, str]) -> None:
    tiny, _ = told
    [row] = tiny.read(table="quarantine").to_pylist()
    assert row["value"] == SHOWN and row["id"] == f"bad{EVIL}", "the key is the file's own"


def test_nothing_of_it_reaches_the_terminal(
    told: tuple[TinyProject, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny, _ = told
    monkeypatch.setattr(pipelines, "find_pipeline", lambda _: tiny.pipeline)
    source = Path(tiny.pipeline.landing.uri, f"dt={DAY}", "a.csv")
    evil = tmp_path / f"b{EVIL}.csv"
    evil.write_bytes(source.read_bytes())
    for file in (source, evil):
        main(
            [
                "score",
                "--pipeline",
                tiny.name,
                "--input",
                str(file),
                "--output",
                str(tmp_path / f"{len(file.name)}.parquet"),
            ]
        )
        main(["score", "--pipeline", tiny.name, "--input", f"{file}{EVIL}", "--output", str(tmp_path / "none.parquet")])
    said = "".join(capsys.readouterr())
    assert SHOWN in said and is_plain(said), said


# commands that doctor prints


@pytest.mark.parametrize("name", ['it\'s a "data" root', "two\nlines", f"root {EVIL}", "$(touch owned); #"])
def test_the_command_that_doctor_prints_removes_the_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    tiny = TinyProject(tmp_path, data_root=str(tmp_path / name))
    log = Path(tiny.pipeline.output.uri, "tables/predictions/_delta_log")
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text('{"commitInfo":{}}\n')
    torn = log / "00000000000000000001.json"
    torn.write_text('{"add":{"pa')
    [finding] = [f for f in delta_tables.logs.look(tiny.pipeline) if "torn" in f.found]
    command = finding.remedy.partition(", then batch-scoring doctor")[0]
    assert command.startswith("rm ") and "\n" not in command and is_plain(command)
    before = {file for file in tmp_path.rglob("*")}
    subprocess.run(["bash", "-c", command], check=True, cwd=tmp_path)
    assert before - {file for file in tmp_path.rglob("*")} == {torn}
    assert {file for file in tmp_path.rglob("*")} <= before


@pytest.mark.parametrize("name", ["it's a home", "two\nlines", "$(touch owned); #"])
def test_the_commands_for_an_instance_are_of_its_folder_alone(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    home.mkdir()
    site = Site((), home=home)
    [lacking] = instance.home.look(site)
    subprocess.run(["bash", "-c", lacking.remedy], check=True, cwd=tmp_path)
    assert [file.name for file in home.iterdir()] == ["dagster.yaml"]
    for database in sqlite_databases.files(home):
        database.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(database)) as opened, opened:
            opened.execute("CREATE TABLE alembic_version (version_num)")
            opened.execute("INSERT INTO alembic_version VALUES ('29b539ebc72a'), ('7e2f3204cf8e')")
    assert [finding.remedy.replace(shell_word(str(home)), "HOME") for finding in instance.home.look(site)] == [
        "DAGSTER_HOME=HOME batch-scoring repair-instance"
    ] * 3
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_of_many_names_the_first_are_named_and_the_others_counted() -> None:
    assert some("abcde") == "a, b, c, d, e"
    assert some(iter("abcdefg"), " or ") == "a or b or c or d or e and 2 more"
    assert some([]) == ""
