"""Pipelines and days that a deployment has not."""

import pytest

from batch_scoring_tests.remote_deployment import There, command
from batch_scoring_tests.tiny import DAY


def test_a_pipeline_that_is_left_out_there_is_no_unknown_one(there: There) -> None:
    said = command(f"submit {there.broken.name} --day {DAY}", there.url)
    assert said.code == 2
    start = f"The pipeline {there.broken.name} is left out of the deployment: {there.broken.folder}/pipeline.yaml line "
    assert said.line.startswith(start) and said.line.endswith(f"(at {there.url})")
    assert "features.schema: 'schema:Rows': schema.py line 1 is not valid Python" in said.line


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("submit TINY --day 2024-02-29", 2, "2024-02-29 is not a day of TINY at URL; its days there are 2024-03-01 … "),
        ("submit TINY --day 2999-01-01", 2, "2999-01-01 is not a day of TINY at URL"),
        ("submit TINY --from 2024-03-05 --to 2024-03-04", 2, "2024-03-04 is before 2024-03-05"),
        ("submit TINY --from 2024-02-05 --to 2024-03-04", 2, "2024-02-05 is not a day of TINY"),
        (
            "submit TINY --day 2024-03-04 --location there",
            2,
            "no code location 'there' at URL; known code locations: broken.py, ",
        ),
        (
            "submit nothing --day 2024-03-04 --location deployed.py",
            2,
            "no pipeline 'nothing' at URL; known pipelines: ",
        ),
        (
            "submit nothing --day 2024-03-04",
            3,
            "but its code location 'broken.py' does not load: ValueError: this deployment has no licence",
        ),
    ],
)
def test_a_pipeline_or_a_day_that_the_deployment_has_not_is_one_line(
    there: There, arguments: str, code: int, says: str
) -> None:
    said = command(there.words(arguments), there.url)
    assert said.code == code and there.words(says) in said.line
