"""`batch-scoring score`: score files from a shell, without a day and without Dagster.

Start reading at `score_files.py`; `command.py` reads the options.
"""
