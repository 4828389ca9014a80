"""The planner alone: whatever a table's history, no version that a reader may be at loses a file."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.config.spec import SUPERSEDED_DAYS, Retention
from batch_scoring.operations.retention.plan import (
    ActiveFile,
    Limits,
    RetentionPlan,
    TableFiles,
    doubts,
    limits_of,
    old_models,
    old_samples,
    superseded,
)
from batch_scoring.storage.folders.folder import FileVersion
from batch_scoring.storage.shards import REUSE_WITHIN
from batch_scoring.storage.state import ActiveModel, PublishedDay, PublishedPart

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
LIMITS = limits_of(Retention())
NAMES = [f"dt=2024-03-04/{letter}.parquet" for letter in "abcde"]


def file(path: str, age: timedelta) -> FileVersion:
    return FileVersion(path, "t", 10, NOW - age)


def test_twice_the_age_of_reuse_is_the_least() -> None:
    assert timedelta(days=SUPERSEDED_DAYS) == 2 * REUSE_WITHIN
    assert limits_of(Retention()) == Limits(7 * DAY, None, None, None)


@given(
    days=st.integers(1, 100),
    stamps=st.lists(st.tuples(st.integers(0, 200), st.floats(0, 200)), max_size=8),
    kept=st.sets(
        st.sampled_from(
            [
                "state/dt=2024-03-04/input.json",
                "state/model.json",
                "state/dt=odd/sample.parquet",
                "state/dt=2024-03-04/deep/sample.parquet",
                "state/dt=2024-03-04/sample.parquet.tmp",
                "landing/dt=2024-03-04/sample.parquet",
                "tables/predictions/dt=2024-03-04/sample.parquet",
            ]
        )
    ),
)
def test_samples_go_when_their_day_and_their_file_are_old_and_nothing_else_does(
    days: int, stamps: list[tuple[int, float]], kept: set[str]
) -> None:
    samples = {
        f"state/dt={(NOW - back * DAY).date()}/sample.parquet": (back, written * DAY) for back, written in stamps
    }
    files = [file(path, written) for path, (_, written) in samples.items()] + [file(path, 999 * DAY) for path in kept]
    gone = {expired.path for expired in old_samples(files, limits_of(Retention(samples_days=days)), NOW)}
    assert gone == {path for path, (back, written) in samples.items() if back > days + 1 and written > days * DAY}
    assert old_samples(files, LIMITS, NOW) == [], "kept for ever as shipped"


@given(
    commits=st.lists(st.tuples(st.floats(0, 20), st.sets(st.sampled_from(NAMES))), max_size=6),
    written=st.fixed_dictionaries({name: st.floats(0, 30) for name in NAMES}),
)
def test_no_version_within_the_retention_loses_a_file(
    commits: list[tuple[float, set[str]]], written: dict[str, float]
) -> None:
    """Each commit sets what is active: files come, go and come back."""
    history = sorted(commits, key=lambda commit: -commit[0])
    before, active, recent = NOW - LIMITS.superseded, set[str](), set[str]()
    readable = []  # of versions that were the newest one at some time since `before`
    for number, (days, files) in enumerate(history):
        if NOW - days * DAY >= before:
            recent |= active ^ files
        active = files
        replaced = NOW - history[number + 1][0] * DAY if number + 1 < len(history) else NOW
        if replaced >= before:
            readable.append(files)
    table = TableFiles(
        "things",
        tuple(file(name, days * DAY) for name, days in written.items()),
        {name: ActiveFile("2024-03-04", 1) for name in active},
        frozenset(recent),
        NOW,
    )
    gone = {expired.path.removeprefix("tables/things/") for expired in superseded(table, LIMITS, NOW)}
    assert all(gone.isdisjoint(files) for files in readable)
    assert all(written[name] > 7 for name in gone)
    useless = {name for name, days in written.items() if days > 7}.difference(*readable)
    assert gone == useless, "and what can go does"


def test_the_clock_is_doubted_for_three_reasons_and_a_store_has_its_own() -> None:
    def said(now: datetime, machine: datetime, newest: datetime, has_a_clock: bool = False) -> list[str]:
        return doubts(now, machine, [], [newest, None], store_has_a_clock=has_a_clock)

    assert said(NOW, NOW, NOW - 30 * DAY) == []
    assert said(NOW, NOW, NOW - 40 * DAY) == [
        "nothing was published for 40 days, since 2024-04-22 12:00 UTC: it is 2024-06-01 12:00 UTC"
    ]
    assert said(NOW, NOW, NOW - 40 * DAY, True) == []
    assert said(NOW, NOW, NOW + 2 * DAY, True) == [
        "a file is from 2024-06-03 12:00 UTC, which is in the future: it is 2024-06-01 12:00 UTC"
    ]
    assert said(NOW, NOW + 2 * DAY, NOW, True) == [
        "this machine's clock says 2024-06-03 12:00 UTC, the store's 2024-06-01 12:00 UTC"
    ]
    assert doubts(NOW, NOW, [], [], store_has_a_clock=False) == [], "nothing was ever published"


def test_no_model_goes_while_a_run_may_still_read_the_one_before() -> None:
    limits = limits_of(Retention(models_days=7))
    copies = {name: [file(f"state/models/{name}/model.safetensors", 90 * DAY)] for name in ("old", "new")}
    nothing = PublishedPart(transaction=0, version=-1, files=())

    def going(promoted: timedelta, finished: timedelta = 60 * DAY, sha256: str = "old") -> list[str]:
        in_force = ActiveModel(name="n", version="v", sha256="new", source="", run_id="r", resolved_at=NOW - promoted)
        published_day = PublishedDay(
            pipeline="p",
            day="2024-03-04",
            step="predictions",
            run_id="r",
            finished_at=NOW - finished,
            fingerprint="f",
            code="c",
            model_sha256=sha256,
            shards=(),
            table=nothing,
            quarantine=nothing,
        )
        return [expired.path for expired in old_models(copies, in_force, None, [published_day], limits, NOW)]

    assert going(timedelta(hours=8)) == ["state/models/old/model.safetensors"]
    assert going(timedelta(hours=6)) == []
    assert going(DAY, finished=6 * DAY) == [], "a day was scored with it"
    assert going(DAY, finished=6 * DAY, sha256="new") == ["state/models/old/model.safetensors"]
    assert old_models(copies, None, None, [], limits, NOW) == [], "no model is active"
    assert RetentionPlan(NOW, limits).totals["models"].files == 0
