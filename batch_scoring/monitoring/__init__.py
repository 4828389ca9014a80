"""Monitoring of a day: findings of the checks, drift, the monthly report, links to its pages.

Start reading at `finding.py`, then `checks/`. Alerts about findings belong to `operations/alerting`, their results in
Dagster to `defs/asset_checks.py`.
"""
