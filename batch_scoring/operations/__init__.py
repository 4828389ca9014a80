"""Runs and their fate: what starts them, what their failures mean, who is told, what may be deleted.

Start reading at `failures.py`.
"""
