"""From landing files to accepted rows: what landed, how it is read, which rows are valid, which keys stand twice.

Start reading at `landing_files.py`, then `row_validator.py`. Knows nothing of models.
"""
