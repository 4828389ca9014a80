"""File formats: each one reads a file as numbered rows in bounded record batches.

Start reading at `rows.py`, the interface that all formats implement.
"""
