"""Folders of files, on a disk of this machine or in S3, behind the same few operations.

`folder.py` says what one can do, `local.py` and `s3.py` do it, `addresses.py` opens the one at an address, `entries.py`
finds what belongs to a local one, `staged_files.py` tries whether one can be written to.
"""
