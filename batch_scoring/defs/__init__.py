"""Dagster's objects: assets, checks, jobs, schedules, sensors, executors.

Start reading at `batch_scoring/definitions.py`. What they do lies in the packages below: here is only what Dagster
must know.
"""
