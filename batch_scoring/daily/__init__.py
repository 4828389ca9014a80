"""One day's work without Dagster: validate, score, publish; and which days are up to date.

Start reading at `stream.py`, then `validate.py`, `score.py` and `publish.py`. The assets that call them are in `defs`,
files and rows in `ingest`, models in `inference`.
"""
