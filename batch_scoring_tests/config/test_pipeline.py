import pytest

from batch_scoring_tests.decided import changed, with_decisions
from batch_scoring_tests.engineered import engineer, write_features
from batch_scoring_tests.specs import put
from batch_scoring_tests.tiny import SCHEMA, TinyProject


def test_code_digests_follow_what_the_rows_depend_on_and_nothing_else(tiny: TinyProject) -> None:
    def digests() -> tuple[str, str]:
        return tiny.pipeline.features_code, tiny.pipeline.scoring_code

    features, scoring = digests()
    tiny.spec |= {"description": "other words", "owners": ["team:other"]}
    tiny.spec["scoring"] = {"batch_rows": 64, "device": "auto"}
    tiny.write_spec()
    assert digests() == (features, scoring)
    with (tiny.folder / "schema.py").open("a") as file:
        file.write("# another rule\n")
    assert digests() == (tiny.pipeline.features_code, scoring) != (features, scoring)
    features, _ = digests()
    with (tiny.folder / "network.py").open("a") as file:
        file.write("# another layer\n")
    assert digests() == (features, tiny.pipeline.scoring_code) != (features, scoring)
    _, scoring = digests()
    for change in (put("scoring", "rows_per_shard", value=7), put("input", "csv", "delimiter", value=";")):
        change(tiny.spec)
        tiny.write_spec()
        assert tiny.pipeline.features_code != features
        assert tiny.pipeline.scoring_code == scoring
        features = tiny.pipeline.features_code
    put("features", "numeric", value=["y", "x", "n"])(tiny.spec)
    tiny.write_spec()
    assert tiny.pipeline.features_code != features
    assert tiny.pipeline.scoring_code != scoring


def test_without_attributes_the_digests_are_what_they_were_before_there_were_any(tiny: TinyProject) -> None:
    """Else every published day would be stale after an upgrade."""
    digests = ("d3567738f10fe171a74c9ad1861ce8d6", "9ffcc3342d92cb8687b704dc9458d5fb")
    assert (tiny.pipeline.features_code, tiny.pipeline.scoring_code) == digests
    tiny.write_code(schema=SCHEMA + "    region: str\n    consent: bool\n")
    features, scoring = tiny.pipeline.features_code, tiny.pipeline.scoring_code
    put("input", "attributes", value=["region"])(tiny.spec)
    tiny.write_spec()
    with_one = tiny.pipeline.features_code
    put("input", "attributes", value=["region", "consent"])(tiny.spec)
    tiny.write_spec()
    assert len({features, with_one, tiny.pipeline.features_code}) == 3, "the rows of features have other columns"
    assert tiny.pipeline.scoring_code == scoring, "no score depends on them"


@pytest.mark.parametrize(
    ("path", "value", "is_followed"),
    [
        ("input.landing", "elsewhere", False),
        ("input.deadline_hours", 3, False),
        ("input.complete", {"quiet_minutes": 30}, False),
        ("input.attributes", ["consent", "region"], True),
        ("decisions", changed("call", most=3), True),
    ],
)
def test_the_digest_of_decisions_follows_what_is_decided_and_not_how_files_arrive(
    tiny: TinyProject, path: str, value: object, is_followed: bool
) -> None:
    with_decisions(tiny)
    before = tiny.pipeline.decisions_code
    put(*path.split("."), value=value)(tiny.spec)
    tiny.write_spec()
    assert (tiny.pipeline.decisions_code != before) == is_followed


def test_scores_follow_the_transform_and_its_modules_and_features_do_not(tiny: TinyProject) -> None:
    engineer(tiny)
    (tiny.folder / "helper.py").write_text("A = 1\n")
    text = (tiny.folder / "features.py").read_text()

    def digests() -> tuple[str, str]:
        return tiny.pipeline.features_code, tiny.pipeline.scoring_code

    features, scoring = digests()
    write_features(tiny, f"from . import helper\n{text}")
    assert digests() == (features, tiny.pipeline.scoring_code) != (features, scoring)
    _, scoring = digests()
    (tiny.folder / "helper.py").write_text("A = 2\n")
    assert digests() == (features, tiny.pipeline.scoring_code) != (features, scoring)
    _, scoring = digests()
    (tiny.folder / "train.py").write_text("# another comment\n")
    assert digests() == (features, scoring)
    put("features", "engineered", value=None)(tiny.spec)
    tiny.write_spec()
    assert digests() == (features, tiny.pipeline.scoring_code) != (features, scoring)


def test_with_a_transform_features_have_all_columns_and_so_another_digest(tiny: TinyProject) -> None:
    engineer(tiny)
    features = tiny.pipeline.features_code
    put("features", "engineered", value=None)(tiny.spec)
    put("features", "transform", value=None)(tiny.spec)
    put("features", "numeric", value=["x", "y", "n"])(tiny.spec)
    put("features", "categorical", value=["c"])(tiny.spec)
    tiny.write_spec()
    without = tiny.pipeline.features_code
    put("features", "transform", value="features:transform")(tiny.spec)
    tiny.write_spec()
    assert len({features, without, tiny.pipeline.features_code}) == 3
