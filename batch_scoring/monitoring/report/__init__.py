"""The monthly report: a month of a pipeline on one HTML page.

Start reading at `month.py`, which reads the state; `page.py` draws.
"""
