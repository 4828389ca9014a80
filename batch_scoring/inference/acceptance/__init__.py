"""Acceptance tests of a bundle before it is written: its outputs against plain torch, its rows, its vocabularies.

Start reading at `golden_rows.py`. `bundle.py` repeats some of them in every run.
"""
