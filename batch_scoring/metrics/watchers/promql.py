"""Metrics of the catalogue in PromQL, as rules and dashboards ask for them."""

from batch_scoring.metrics.catalogue import DAY_ROWS, Metric

JOB = "batch-scoring"
"""The scrape job, for which the rules about the exporter itself ask."""


def value(metric: Metric, *matchers: str, window: str = "", offset: str = "") -> str:
    """A metric, whichever process exports it.

    A restarted pod has another name and address. Without these labels its series continue those of the pod before, and
    an alert that is firing stays the same alert.

    Args:
        metric: of the catalogue.
        matchers: of labels, for example `pipeline="churn"`.
        window: take the last value within this time, so that lost scrapes are bridged.
        offset: how long ago; now if empty.
    """
    selected = metric.full_name + (f"{{{', '.join(matchers)}}}" if matchers else "")
    if window:
        selected = f"last_over_time({selected}[{window}]{f' offset {offset}' if offset else ''})"
    return f"max without (instance, pod) ({selected})"


def age(metric: Metric, *matchers: str) -> str:
    """Seconds since the time that a metric says."""
    return f"time() - {value(metric, *matchers)}"


def failed_rows(*matchers: str) -> str:
    """Input rows of the newest scored day that have no score."""
    lost = value(DAY_ROWS, *matchers, 'outcome!="scored"')
    return f"sum without (outcome) ({lost})"


def scored_share(*matchers: str) -> str:
    """Share of the input rows of the newest scored day that have a score; not a number without rows."""
    scored = value(DAY_ROWS, *matchers, 'outcome="scored"')
    return f"sum without (outcome) ({scored})\n/ sum without (outcome) ({value(DAY_ROWS, *matchers)})"
