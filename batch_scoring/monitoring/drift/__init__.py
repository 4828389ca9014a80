"""A day compared with the reference of its model: distances, learned thresholds, pages.

Start reading at `comparison.py`.
"""
