"""The subcommand `new`: a pipeline's folder from a sample of its table.

`sample.py` reads the sample, `columns.py` says what each column is, `pipeline_files.py` writes the folder's files from
that, `landing.py` and `training_sample.py` write the first data. Start reading at `create.py`.
"""
