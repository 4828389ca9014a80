from batch_scoring_tests.specs import put
from batch_scoring_tests.tiny import TinyProject


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
