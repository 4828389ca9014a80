"""Reliability under real conditions: processes that are killed and race, real Delta tables, a failing S3.

Every scenario is a function that returns a report (`scenarios.py`). The test suite runs each with a small count;
`python -m batch_scoring_tests.reliability` runs them with their full counts and prints a table.
"""
