"""Automatic runs: the planner that selects days, and its inputs from storage, queues and clocks.

Start reading at `planner.py`, whose functions are pure.
"""
