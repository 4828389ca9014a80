"""`batch-scoring backfill`: many days in one process, one Dagster run per day.

Start reading at `run_days.py`; `command.py` reads the arguments, `selection.py` decides which days are run.
"""
