"""`batch-scoring export`: published days to their sinks in one process, one Dagster run per export and day.

Start reading at `export_days.py`; `command.py` reads the arguments.
"""
