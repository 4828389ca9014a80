"""Which days run by themselves: the planner, and what it is told by storage, queues and clocks.

Start reading at `planner.py`, which is pure.
"""
