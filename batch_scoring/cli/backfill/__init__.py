"""`batch-scoring backfill`: many days in one process, a Dagster run for each.

Start reading at `command.py`; `selection.py` decides which days.
"""
