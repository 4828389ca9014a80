"""Rules over columns that a spec may have, without any row: their syntax and logic, and the reasons that they give.

Start with `expressions.py`.
"""
