"""Configuration: the spec and its validation, the pipeline that it describes, and the loader that finds pipelines.

Start reading at `spec.py`, then `loader.py`. Nothing here reads rows or models or imports Dagster; Dagster objects are
in `defs`.
"""
