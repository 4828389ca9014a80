"""Dagster's objects: assets, checks, jobs, schedules, sensors, executors.

Start reading at `batch_scoring/definitions.py`, their table of contents. They only adapt the packages below to
Dagster; the work itself is done there.
"""
