"""Operation of runs: the automation that starts them, failure classes, alerts, retention.

Start reading at `retry_policy.py`.
"""
