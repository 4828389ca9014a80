"""Reliability against the real world: real processes that are killed and race, real Delta tables, S3 that fails.

Every scenario is a function that returns what it saw (`scenarios.py`). The suite runs each with a small count;
`python -m batch_scoring_tests.reliability` runs them with their full counts and prints a table.
"""
