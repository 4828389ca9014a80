"""What a bundle must pass before it is written: its outputs against plain torch, its rows, its vocabularies.

Start reading at `golden_rows.py`. What a run verifies again is the business of `bundle.py`.
"""
