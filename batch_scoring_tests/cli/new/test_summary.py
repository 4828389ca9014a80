"""What the command says: every command in it can be typed."""

import shlex
from pathlib import Path

import pytest

from batch_scoring.cli import subcommands
from batch_scoring.cli.new import summary
from batch_scoring.cli.new.columns import tell
from batch_scoring.cli.new.weights import Weights
from batch_scoring_tests.cli.new.conftest import Read
from batch_scoring_tests.telco import customers
from batch_scoring_tests.tiny import TinyProject

WEIGHTS = Weights(
    Path("/my models/a.pt"),
    "model",
    ("average",),
    "module.",
    {"last.weight": (1, 8), "last.bias": (1,)},
    (),
    {"hidden_dims": [8, 4], "name": "it's"},
    None,
)
DAYS = [f"2024-01-{number:02d}" for number in range(1, 29)]

HELP = ["-h", "--help"]
"""As the command line has them: a command keeps the names that it is first asked for."""


def test_what_is_found_is_said_line_by_line(sampled: Read) -> None:
    rows = [row | {"note": f"text {number}\u2028"} for number, row in enumerate(customers(400))]
    sample = sampled(rows, "telco.csv")
    assert summary.found(sample, tell(sample, "customerID", "Churn", None)).splitlines() == [
        "telco.csv: 400 rows",
        "key          customerID",
        "label        Churn: No, Yes",
        "features     4 numeric, 15 categorical",
        "left out     note: it is text with 400 different values",
    ]
    assert "label        tenure: a number\n" in summary.found(sample, tell(sample, "customerID", "tenure", None))


@pytest.mark.parametrize(("days", "said"), [(DAYS[:1], 2), (DAYS[:2], 3), (DAYS, 3)])
def test_the_commands_of_the_next_steps_are_complete(tiny: TinyProject, days: list[str], said: int) -> None:
    text = summary.next_steps(tiny.pipeline, days) + summary.repair(tiny.pipeline, days)
    commands = [line.partition("batch-scoring ")[2] for line in text.splitlines() if "batch-scoring " in line]
    assert len(commands) == said
    for command in commands:
        name, *arguments = shlex.split(command.replace("FIRST", DAYS[0]).replace("LAST", DAYS[-1]))
        entry = subcommands._batch_scoring.get_command(None, name)  # type: ignore[arg-type]
        assert entry is not None
        entry.make_context(name, arguments, help_option_names=HELP)
    assert f"python -m batch_scoring.pipelines.{tiny.name}.train" in text


def test_the_command_for_weights_names_all_classes_and_is_quoted(
    tiny: TinyProject, sampled: Read, tmp_path: Path
) -> None:
    vocabulary = tmp_path / "my words.json"
    vocabulary.write_text("{}")
    sample = sampled(customers(400))
    roles = tell(sample, None, "PaymentMethod", None)
    text = summary.next_with_weights(tiny.pipeline, roles, WEIGHTS, vocabulary, DAYS)
    words = shlex.split(text.partition("- batch-scoring ")[2].partition("\n  leave")[0].replace("\\\n", " "))
    assert words[words.index("--checkpoint") + 1] == "/my models/a.pt"
    assert words[words.index("--arguments") + 1] == '{"hidden_dims": [8, 4], "name": "it\'s"}'
    assert words[words.index("--version") + 1] == Path(tiny.pipeline.bundle.uri).name
    assert words[words.index("--entry") + 1] == "model" and words[words.index("--vocabulary") + 1] == str(vocabulary)
    assert "--logits" not in words
    command = subcommands._batch_scoring.get_command(None, words[0])  # type: ignore[arg-type]
    assert command is not None
    command.make_context(words[0], words[1:], help_option_names=HELP)
    at = words.index("--classes")
    assert words[at + 1 : at + 5] == [
        "Bank transfer (automatic)",
        "Credit card (automatic)",
        "Electronic check",
        "Mailed check",
    ]


@pytest.mark.parametrize(("label", "said"), [("Churn", "--classes No Yes --logits 1"), ("tenure", "--regression")])
def test_the_task_follows_from_the_label_and_the_last_weights(
    tiny: TinyProject, sampled: Read, label: str, said: str
) -> None:
    roles = tell(sampled(customers(400)), None, label, None)
    text = summary.next_with_weights(tiny.pipeline, roles, WEIGHTS, None, DAYS)
    assert f" {said} \\\n" in text
    assert ("add --outputs probabilities" in text) == (label == "Churn")


def test_what_no_file_tells_is_asked_for(tiny: TinyProject, sampled: Read) -> None:
    roles = tell(sampled(customers(400)), None, None, None)
    text = summary.next_with_weights(tiny.pipeline, roles, None, None, DAYS)
    assert "--checkpoint FILE" in text and "--classes CLASS …" in text and "--vocabulary" not in text
    assert "add --outputs probabilities if" in text and """add --arguments '{"NAME": VALUE}' if""" in text


def test_what_is_written_is_said_with_what_is_lost(tiny: TinyProject, sampled: Read) -> None:
    text = summary.written(tiny.pipeline, sampled(customers(400)), DAYS[:1], 390)
    assert "dt=2024-01-01 (yesterday: no --day names a column of days)\n" in text
    assert "sample.parquet: 390 rows, 10 have no label or break the schema\n" in text
    assert "dt=2024-01-01 to dt=2024-01-28, 28 days\n" in summary.written(
        tiny.pipeline, sampled(customers(400)), DAYS, 400
    )
