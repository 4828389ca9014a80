"""Decisions: at most one action for each row of a day, with the reason.

Start reading at `decide.py`, which has the rules; `prepare.py` makes a day's shard of them.
"""
