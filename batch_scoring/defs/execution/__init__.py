"""How Dagster executes and remembers: executors, step pods on Kubernetes, the IO manager, SQLite storages.

Start reading at `executors.py`.
"""
