"""`batch-scoring score`: files scored from a shell, without a day and without Dagster.

Start reading at `command.py`.
"""
