"""The findings of decisions' checks on a day, from its shard stats and published days alone: no row is read again."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from batch_scoring.config.delivery_spec import NO_ACTION, Decisions
from batch_scoring.config.rules import reasons
from batch_scoring.daily import trailing_days
from batch_scoring.daily.publish import DayStep, Prepared
from batch_scoring.monitoring.finding import Finding
from batch_scoring.storage.state import PublishedDay, ShardStats

CHECKS = {
    "every_row_is_decided": "Every row of the day's predictions has one decision, and no other row has one.",
    "caps_hold": "No action has more rows than its `most`, in total and for each value of a column in `most_per`.",
    "reasons_are_known": "Every action and every reason is one that the spec names or gives.",
    "actions_are_usual": "Each action has about as many rows as on the 28 days before, by the same rules. Fails with "
    "over 25 % (`tolerance`) and what chance adds more or fewer rows than on all but one of those days.",
    "arms_are_balanced": "Of the rows that would get an action with a hold-out, the share in the control group is near "
    "`share`: within 4 standard errors, from 100 rows on.",
}

CHANCE = 2.0
"""Standard errors by which the rows of an action may differ from one day to the next by chance alone."""
ARMS = 4.0
"""Standard errors by which the control group's share may differ from the spec's."""
LEAST_ARMS = 100
"""Rows below which a share says nothing."""
ARMS_SLACK = 2.0
"""Rows that a control group may also have more or fewer: of a small one, standard errors promise too much."""


def findings(step: DayStep, prepared: Prepared, predictions: PublishedDay) -> list[Finding]:
    """The findings of every check, before anything is published."""
    decisions = step.pipeline.spec.decisions
    assert decisions is not None, "the asset is there only for pipelines with decisions"
    shard_stats = prepared.shard_stats
    before = [
        published
        for published in trailing_days.published_days(step.state, "decisions", step.day)
        if published.code == step.pipeline.decisions_code
    ]
    actions = counted(shard_stats, "actions")
    return [
        _every_row(shard_stats, predictions),
        _caps(decisions, actions, shard_stats),
        _reasons(decisions, actions, counted(shard_stats, "reasons")),
        usual_actions(decisions, actions, before, step.pipeline.spec.checks.actions_are_usual.tolerance),
        balanced_arms(decisions, arms(shard_stats)),
    ]


def counted(shard_stats: Sequence[ShardStats], field: str) -> Counter[str]:
    """Rows by action, or by reason, over all shards."""
    total: Counter[str] = Counter()
    for shard in shard_stats:
        total.update(getattr(shard, field))
    return total


def arms(shard_stats: Sequence[ShardStats]) -> dict[str, Counter[str]]:
    """Rows by action and arm, over all shards."""
    found: dict[str, Counter[str]] = {}
    for shard in shard_stats:
        for action, counts in shard.arms.items():
            found.setdefault(action, Counter()).update(counts)
    return found


def largest_groups(shard_stats: Sequence[ShardStats]) -> Iterator[tuple[str, str, str, int]]:
    """The value with the most rows of each capped column: action, column, value and rows."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for shard in shard_stats:
        for action, columns in shard.groups.items():
            for column, counts in columns.items():
                found.setdefault((action, column), Counter()).update(counts)
    for (action, column), counts in found.items():
        if counts:
            (value, rows) = counts.most_common(1)[0]
            yield action, column, value, rows


def _every_row(shard_stats: Sequence[ShardStats], predictions: PublishedDay) -> Finding:
    rows = sum(shard.rows for shard in shard_stats)
    decided = sum(sum(shard.actions.values()) for shard in shard_stats)
    keys, expected = (sum(shard.keys for shard in shards) % 2**64 for shards in (shard_stats, predictions.shards))
    others = "" if keys == expected else "; they are not of the same keys"
    passed = rows == decided == predictions.rows and not others
    advice = "" if passed else ": run predictions of the day again, then decisions"
    return Finding(
        "every_row_is_decided",
        passed,
        f"{predictions.rows} scored rows, {decided} decided, {rows} in the table{others}{advice}",
        {"rows_in": predictions.rows, "rows": rows},
        observed=decided,
        expected=f"{predictions.rows} rows",
    )


def _caps(decisions: Decisions, actions: Mapping[str, int], shard_stats: Sequence[ShardStats]) -> Finding:
    used = [
        (name, "", "", actions.get(name, 0), action.most)
        for name, action in decisions.actions.items()
        if action.most is not None
    ]
    used += [
        (name, column, value, rows, decisions.actions[name].most_per[column])
        for name, column, value, rows in largest_groups(shard_stats)
        if name in decisions.actions and column in decisions.actions[name].most_per
    ]
    over = [
        f"{name} has {rows} rows{f' with {column} {value}' if column else ''}, expected at most {cap}"
        for name, column, value, rows, cap in used
        if rows > cap
    ]
    fault = "the function exceeds a cap of the spec: correct it" if decisions.function else "report this bug"
    kept = f"{len(used)} caps hold" if used else "the spec has no caps"
    table = [
        {"action": name, "column": column, "value": value, "rows": rows, "most": cap}
        for name, column, value, rows, cap in used
    ]
    return Finding(
        "caps_hold",
        not over,
        f"{'; '.join(over)}; {fault}" if over else kept,
        {"caps": table} if table else {},
        observed=len(over),
        expected="no cap is exceeded",
        limits=[0],
    )


def _reasons(decisions: Decisions, actions: Mapping[str, int], given: Mapping[str, int]) -> Finding:
    named = {NO_ACTION, *decisions.actions}
    known = reasons.vocabulary(decisions)
    unknown = [f"action {name!r}" for name, rows in actions.items() if rows and name not in named]
    unknown += [f"reason {name!r}" for name, rows in given.items() if rows and name not in known]
    rows = sum(n for name, n in actions.items() if name not in named)
    rows = max(rows, sum(n for name, n in given.items() if name not in known))
    advice = "; name them in decisions, or correct the function" if decisions.function else "; report this bug"
    return Finding(
        "reasons_are_known",
        not unknown,
        f"{rows} rows with {', '.join(unknown[:5])}, which the spec does not name{advice}"
        if unknown
        else f"{sum(1 for n in given.values() if n)} reasons, all of the spec",
        observed=rows,
        expected="no unknown action or reason",
        limits=[0],
    )


def usual_actions(
    decisions: Decisions, actions: Mapping[str, int], before: Sequence[PublishedDay], tolerance: float
) -> Finding:
    """The finding actions_are_usual: rows of each action compared with those of the days before."""
    check = "actions_are_usual"
    days = [counted(published.shards, "actions") for published in before]
    now = ", ".join(f"{name} {actions.get(name, 0)}" for name in decisions.actions)
    found = {}
    for name in decisions.actions:
        limits = usual_rows([counts[name] for counts in days], tolerance)
        if limits is None:
            known = f"{len(days)} of the 28 days before, by these rules; expected at least 7"
            return Finding(check, True, f"{now}; no history yet: {known}")
        found[name] = (actions.get(name, 0), *limits)
    unusual = [
        f"{name} has {rows} rows, expected {low:.0f} to {high:.0f}"
        for name, (rows, low, high) in found.items()
        if not low <= rows <= high
    ]
    table = [
        {"action": name, "rows": rows, "from": round(low), "to": round(high)}
        for name, (rows, low, high) in found.items()
    ]
    advice = f", by the {len(days)} days before; compare the scores, and the columns that the rules read"
    return Finding(
        check,
        not unusual,
        "; ".join(unusual) + advice if unusual else f"{now}; usual, by the {len(days)} days before",
        {"actions": table},
        observed=max(_distance(rows, low, high) for rows, low, high in found.values()),
        expected="at most 1: 0 is the middle of the usual range, 1 its end",
        limits=[1],
    )


def usual_rows(before: Sequence[int], tolerance: float) -> tuple[float, float] | None:
    """Lower and upper limit of an action's usual rows; None with fewer than 7 days before.

    To the margin that `tolerance` gives is added what chance does to small counts: two standard errors of a count of
    that size, at least 2 rows. Of ten simulated years with 2, 5, 20, 100, 1,000 or 10,000 rows a day and a fifth fewer
    at weekends no day fails; if the days also differ by 20 % among themselves, two a year at most (from 1,000 rows on).
    An action that gets no row fails if it usually had 20, one with half or twice its rows if it usually had 1,000.
    """
    usual = trailing_days.usual_range(before, tolerance)
    if usual is None:
        return None
    low, high = usual
    return max(0.0, low - _chance(low)), high + _chance(high)


def _chance(rows: float) -> float:
    return max(CHANCE, CHANCE * math.sqrt(rows))


def _distance(rows: int, low: float, high: float) -> float:
    """How far a number lies from the middle of a range, in halves of the range."""
    return abs(rows - (low + high) / 2) / ((high - low) / 2)


def balanced_arms(decisions: Decisions, found: Mapping[str, Mapping[str, int]]) -> Finding:
    """The finding arms_are_balanced: the control group's share of the rows that would get the action.

    Of 500 simulated years with a share of 1 to 50 % and 100 to 10,000 rows a day, at most one day in 37 years fails. A
    control group of twice its size fails on every third day with 300 rows and 5 %, with 1,000 rows on 98 of 100 days; a
    missing one with 1,000 rows always.
    """
    check = "arms_are_balanced"
    wanted = {name: action.holdout.share for name, action in decisions.actions.items() if action.holdout}
    shares, unbalanced, distances = [], [], []
    for name, share in wanted.items():
        control = found.get(name, {}).get("control", 0)
        rows = control + found.get(name, {}).get("treated", 0)
        shares.append(f"{name}: {control} of {rows} rows in the control group")
        if rows < LEAST_ARMS:
            continue
        error = math.sqrt(share * (1 - share) * rows)
        distance = max(0.0, abs(control - share * rows) - ARMS_SLACK) / max(error, 1.0)
        distances.append(distance)
        if distance > ARMS:
            allowed = ARMS * error + ARMS_SLACK
            unbalanced.append(
                f"{name}: {control} of {rows} rows in the control group, expected {share * rows:.0f} ± {allowed:.0f}"
            )
    if not distances:
        why = f"fewer than {LEAST_ARMS} rows" if wanted else "no action has a hold-out"
        return Finding(check, True, f"not tested: {why}{''.join(f'; {share}' for share in shares)}")
    advice = "; keys that look alike, or a salt that names them: choose another salt"
    return Finding(
        check,
        not unbalanced,
        "; ".join(unbalanced) + advice if unbalanced else "; ".join(shares),
        observed=max(distances),
        expected=f"at most {ARMS:g} standard errors from the spec's share",
        limits=[ARMS],
    )
