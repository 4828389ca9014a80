"""Execution and storage of Dagster's runs: executors, step pods on Kubernetes, the IO manager, SQLite storages.

Start reading at `executors.py`.
"""
