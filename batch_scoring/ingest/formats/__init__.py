"""How each file format becomes numbered rows in bounded record batches.

Start reading at `rows.py`, the interface that every format has.
"""
