"""How Dagster executes runs and stores them: executors, step pods on Kubernetes, the IO manager, SQLite storages.

Start reading at `executors.py`.
"""
