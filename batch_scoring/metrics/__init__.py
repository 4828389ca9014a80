"""What monitoring systems are told: metrics read from the state, and the rules and dashboards that show them.

Start reading at `catalogue.py`, then `collect.py`. Alerts that this project sends itself belong to
`operations/alerting`; these metrics are for a watcher outside, who also sees that the daemon is gone.
"""
