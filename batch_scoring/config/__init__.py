"""What a team declares: the spec, its validation, the pipeline that comes of it, and how pipelines are found.

Start reading at `spec.py`. Nothing here reads rows, models or Dagster's instance.
"""
