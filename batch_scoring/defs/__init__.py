"""Dagster's objects: assets, checks, jobs, schedules, sensors, executors.

Start reading at `batch_scoring/definitions.py`, their table of contents. Only what Dagster must know stands here; what
they do is in the packages below.
"""
