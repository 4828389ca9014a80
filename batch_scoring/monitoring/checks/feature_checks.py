"""The findings of validated_features' checks on a day, from its shard stats alone: no row is read again."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from batch_scoring.config.spec import Checks
from batch_scoring.daily.publish import DayStep, Prepared
from batch_scoring.errors import BundleError
from batch_scoring.inference.bundle import read_description
from batch_scoring.inference.reference_profile import ReferenceProfile
from batch_scoring.ingest.quarantine import STAGES_OF_PREDICTIONS, shortened
from batch_scoring.monitoring.finding import Finding
from batch_scoring.storage.state import DayInput, ShardStats, State

CHECKS = {
    "rows_are_conserved": "Every row that raw_input counted is accepted or in the quarantine, exactly once.",
    "keys_are_unique": "No two accepted rows of the day have the same key.",
    "some_rows_are_accepted": "At least one row of the day meets the contract.",
    "quarantine_is_small": "Few rows of the day are in the quarantine. Fails above `share` (5 % by default) plus what "
    "chance adds to it: with 53 of 811 rows or 10 of 100, never with 3. Above `blocking_share` (50 %) nothing is "
    "published.",
    "categories_are_known": "Nearly all values of the categorical columns are known to the active model. Fails if more "
    "than `rows` (2 by default) and more than `share` (2 %) of a column's rows have an unknown value.",
    "categories_are_present": "Every value that occurs on each day of the model's reference is present. Fails if at "
    "least `rows` of it (5 by default) were expected.",
}

WORDS_SHOWN = 50
"""Maximum number of values that a message or table lists."""

_SETTINGS = {
    "quotes_are_closed": "; see input.csv.quote, escape and newlines in the spec",
    "quotes_end_cells": "; see input.csv.escape and quote in the spec",
    "line_is_an_object": "; expected one JSON object on each line",
    "fields_have_declared_types": "; Field(coerce=True) in the schema accepts text and numbers for one another",
}
"""Settings to check for a rejection reason, where neither schema nor rows may be at fault."""

_CORRECT = "upload corrected files, or correct the schema; batch-scoring doctor shows values of the newest file"

Categories = dict[str, Counter[str]]
"""Rows by categorical column and value."""


def findings(step: DayStep, prepared: Prepared, pinned: DayInput) -> list[Finding]:
    """The findings of every check, before anything is published."""
    shard_stats, thresholds = prepared.shard_stats, step.pipeline.spec.checks
    categories = categories_of(shard_stats)
    vocabularies, profile, why = _model(step.state)
    return [
        *_conservation(prepared, pinned),
        quarantine_size(shard_stats, thresholds),
        known_categories(categories, vocabularies, thresholds, why),
        _present(categories, sum(shard.rows for shard in shard_stats), profile, thresholds, why),
    ]


def rejected_by_reason(shard_stats: Iterable[ShardStats]) -> list[tuple[tuple[str, str], int]]:
    """Rejected rows by stage and reason, the most frequent first."""
    total: Counter[tuple[str, str]] = Counter()
    for shard in shard_stats:
        for stage, reasons in shard.quarantined.items():
            total.update({(stage, reason): rows for reason, rows in reasons.items()})
    return total.most_common()


def _conservation(prepared: Prepared, pinned: DayInput) -> list[Finding]:
    shard_stats = prepared.shard_stats
    rows_in, rows = sum(shard.rows_in for shard in shard_stats), sum(shard.rows for shard in shard_stats)
    rejected = sum(shard.rows_quarantined for shard in shard_stats)
    damaged = _damaged(shard_stats, pinned)
    distinct = rows if prepared.published else prepared.distinct_keys
    reused = [shard.stats for shard in prepared.shards if shard.reused]
    return [
        Finding(
            "rows_are_conserved",
            not damaged,
            f"{pinned.rows} rows pinned, {rows_in} read, {rows} accepted, {rejected} in the quarantine"
            + (f"; rows are lost or doubled in {_remedy(damaged, pinned)}" if damaged else ""),
            {"rows_pinned": pinned.rows, "rows_in": rows_in, "rows": rows, "rows_quarantined": rejected},
            observed=rows + rejected,
            expected=f"{pinned.rows} rows",
        ),
        Finding(
            "keys_are_unique",
            distinct == rows,
            f"{rows} accepted rows have {distinct} distinct keys"
            + ("" if distinct == rows else f"; a key occurs twice in {_remedy(reused or shard_stats, pinned)}"),
            {"rows": rows, "keys": distinct},
            observed=rows - distinct,
            expected="no two rows with the same key",
        ),
        acceptance(shard_stats),
    ]


def acceptance(shard_stats: Sequence[ShardStats]) -> Finding:
    """The finding some_rows_are_accepted."""
    rows_in, rows = sum(shard.rows_in for shard in shard_stats), sum(shard.rows for shard in shard_stats)
    return Finding(
        "some_rows_are_accepted",
        rows > 0,
        f"{rows} of {rows_in} rows are accepted" + ("" if rows else f"; reasons: {_worst(shard_stats)}; {_CORRECT}"),
        {"rows": rows},
        observed=rows,
        expected="at least one row",
    )


def quarantine_size(shard_stats: Sequence[ShardStats], thresholds: Checks, rows_in: int | None = None) -> Finding:
    """The finding quarantine_is_small.

    Args:
        shard_stats: statistics of the shards of every stage that has lost rows.
        thresholds: of the spec.
        rows_in: rows that entered the first stage; those of all shards if None.
    """
    bounds = thresholds.quarantine_is_small
    rows_in = sum(shard.rows_in for shard in shard_stats) if rows_in is None else rows_in
    rejected = sum(shard.rows_quarantined for shard in shard_stats)
    share, most = rejected / max(rows_in, 1), math.floor(bounds.most(rows_in))
    passed, blocks = rejected <= most, share > bounds.blocking_share
    expected = f"at most {_rows(most)} of {rows_in}; above {bounds.blocking_share:.0%} the day stops"
    message = f"{rejected} of {rows_in} rows ({share:.1%}) are in the quarantine, expected {expected}"
    if rejected:
        message += f"; reasons: {_worst(shard_stats)}"
    if blocks:
        message += f"; nothing is published: {_way_out(shard_stats)}"
    return Finding(
        "quarantine_is_small",
        passed and not blocks,
        message,
        {"rows": rows_in, "rows_quarantined": rejected},
        observed=share,
        expected=expected,
        limits=[most / max(rows_in, 1)],
        blocks=blocks,
    )


def _way_out(shard_stats: Iterable[ShardStats]) -> str:
    (stage, _), _ = rejected_by_reason(shard_stats)[0]
    if stage in STAGES_OF_PREDICTIONS:
        return "see the rows and the model that cannot score them"
    return _CORRECT


def known_categories(
    categories: Categories, vocabularies: dict[str, tuple[str, ...]], thresholds: Checks, why: str = ""
) -> Finding:
    """The finding categories_are_known; `why`: the reason if there are no vocabularies to test with."""
    check, bounds = "categories_are_known", thresholds.categories_are_known
    expected = f"at most {bounds.share:.1%} of a column's rows, or {bounds.rows} rows"
    if why:
        return Finding(check, True, f"not tested: {why}", expected=expected)
    records, shares, beyond, trimmed = [], [0.0], [], []
    for column, vocabulary in vocabularies.items():
        counts = categories.get(column, Counter())
        unknown = {value: rows for value, rows in counts.most_common() if value not in set(vocabulary)}
        strange, rows = sum(unknown.values()), max(counts.total(), 1)
        shares.append(strange / rows)
        if any(word != word.strip() and word.strip() in unknown for word in vocabulary):
            trimmed.append(column)
        if strange > max(bounds.rows, bounds.share * rows):
            beyond.append(f"{column} ({strange} of {rows} rows: {_listed(unknown)})")
        shown = ((shortened(word), rows) for word, rows in list(unknown.items())[:WORDS_SHOWN])
        records += [{"column": column, "value": word, "rows": n} for word, n in shown]
    message = (
        f"at most {max(shares):.1%} of a column's rows have a value that the model has not seen, expected {expected}"
    )
    if beyond:
        message += f"; above that: {', '.join(beyond)}; they are scored as unknown: train a model that knows them"
    if trimmed:
        message += (
            f"; for {', '.join(trimmed)} the model knows the same words with blanks around them, but they are trimmed: "
            "set input.csv.trim: false, or train it again; nothing is published with such scores"
        )
    figures = {"unknown_values": records[:WORDS_SHOWN]} if records else {}
    return Finding(
        check,
        not (beyond or trimmed),
        message,
        figures,
        observed=max(shares),
        expected=expected,
        limits=[bounds.share],
        blocks=bool(trimmed),
    )


def _present(
    categories: Categories, rows: int, profile: ReferenceProfile | None, thresholds: Checks, why: str
) -> Finding:
    check, least = "categories_are_present", thresholds.categories_are_present.rows
    expected = f"none absent that every reference day has and of which at least {least:g} rows are expected"
    if profile is None:
        return Finding(check, True, f"not tested: {why or 'the bundle has no reference profile'}", expected=expected)
    watched = [
        (column, value, min(rows, profile.rows) * share)
        for column, values in profile.everyday.items()
        for value, share in values.items()
        if min(rows, profile.rows) * share >= least
    ]
    absent = [(column, value, due) for column, value, due in watched if not categories.get(column, Counter())[value]]
    message = f"{len(absent)} of {len(watched)} values are absent, expected {expected}"
    if absent:
        message += ": " + ", ".join(f"{column} {value} (about {due:.0f} rows)" for column, value, due in absent[:10])
        message += "; ask the supplier of the files whether rows are missing"
    return Finding(
        check, not absent, message, {"watched": len(watched)}, observed=len(absent), expected=expected, limits=[0]
    )


def _model(state: State) -> tuple[dict[str, tuple[str, ...]], ReferenceProfile | None, str]:
    """Vocabularies and reference profile of the active model, or the reason why there are none."""
    model = state.model_or_none()
    if model is None:
        return {}, None, "no model is active yet"
    try:
        manifest, profile = read_description(state.models.subfolder(model.sha256))
    except BundleError as error:  # the model's own checks stop the scoring
        return {}, None, str(error)
    return manifest.categorical, profile and _of_columns(profile, manifest.engineered), ""


def _of_columns(profile: ReferenceProfile, engineered: Iterable[str]) -> ReferenceProfile:
    """The profile without the everyday values of engineered features: validated rows have none yet."""
    everyday = {name: values for name, values in profile.everyday.items() if name not in engineered}
    return profile.model_copy(update={"everyday": everyday})


def categories_of(shard_stats: Iterable[ShardStats]) -> Categories:
    """Rows by categorical column and value, of all shards."""
    total: Categories = {}
    for shard in shard_stats:
        for column, counts in shard.categories.items():
            total.setdefault(column, Counter()).update(counts)
    return total


def _damaged(shard_stats: Sequence[ShardStats], pinned: DayInput) -> list[ShardStats]:
    """Shards whose stats do not add up, or whose file has other rows than were pinned."""
    read = {file.path: 0 for file in pinned.files}
    for shard in shard_stats:
        read[_file(shard)] = read.get(_file(shard), 0) + shard.rows_in
    whole = {file.path for file in pinned.files if read[file.path] == file.rows}
    return [shard for shard in shard_stats if not shard.is_balanced or _file(shard) not in whole]


def _file(shard: ShardStats) -> str:
    """The landing file that a shard was cut from."""
    return shard.source.rpartition("#")[0]


def _remedy(suspects: Sequence[ShardStats], pinned: DayInput) -> str:
    files = ", ".join(f"{shard.digest}-*.parquet (of {_file(shard)})" for shard in suspects[:5])
    more = f" or one of {len(suspects) - 5} more" if len(suspects) > 5 else ""
    return f"{files}{more}: remove it from tables/validated_features/dt={pinned.day} and run the day again"


def _worst(shard_stats: Sequence[ShardStats]) -> str:
    worst = rejected_by_reason(shard_stats)[:3]
    reasons = [f"{reason} ({_rows(n)}{_SETTINGS.get(reason, '')})" for (_, reason), n in worst]
    return ", ".join(reasons) or "no rows at all"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _listed(unknown: dict[str, int]) -> str:
    words = list(unknown)
    return ", ".join(f'"{shortened(word)}"' for word in words[:10]) + (
        f" and {len(words) - 10} more" if len(words) > 10 else ""
    )
