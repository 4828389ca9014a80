"""The pipeline's pandera schema, applied row by row.

Start reading at `contract.py`.
"""
