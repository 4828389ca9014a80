from batch_scoring_tests.tiny import DAY, TinyProject, checks


def test_a_day_is_scored_and_every_row_accounted_for(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(1000))
    result = tiny.run()
    assert all(checks(result).values())
    scored = tiny.read()
    assert scored.num_rows == 1000
    assert scored.column_names == [
        "id",
        "prediction",
        "prediction_proba",
        "prob_class_0",
        "prob_class_1",
        "model_version",
        "scored_at",
        "dt",
    ]
    assert set(scored["model_version"].to_pylist()) == {"v1"}


def test_an_unchanged_day_commits_nothing(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100))
    tiny.run()
    before = tiny.published_day("predictions"), tiny.published_day("validated_features")
    tiny.run()
    assert (tiny.published_day("predictions"), tiny.published_day("validated_features")) == before
