"""One day's work without Dagster: validate, score, publish; and which days are up to date.

Start reading at `publish.py`. How assets call it stands in `defs`, files and rows in `ingest`, models in `inference`.
"""
