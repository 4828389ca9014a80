"""Drift of a day from the reference of its model: distances, learned thresholds, findings, pages.

Start reading at `findings.py`, then `comparison.py`.
"""
