"""Rules over columns that a spec may have: their syntax and logic, without any row. Start with `expressions.py`."""
