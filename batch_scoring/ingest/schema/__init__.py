"""The pipeline's pandera schema, decided row by row.

Start reading at `contract.py`.
"""
