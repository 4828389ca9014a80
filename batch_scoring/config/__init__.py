"""What a team declares: the spec, its validation, the pipeline that it makes, and how pipelines are found.

Start reading at `spec.py`, then `loader.py`. Nothing here reads rows or models or imports Dagster; its objects stand in
`defs`.
"""
