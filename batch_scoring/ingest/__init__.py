"""From landing files to accepted rows: listing and reading files, validating rows, detecting duplicate keys.

Start reading at `landing_files.py`, then `row_validator.py`. Nothing here depends on a model.
"""
