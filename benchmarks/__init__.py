"""Side by side with others: `scoring` (engine), `load` (code location), `day`, `adhoc` (a file); each a command.

`peers.py` holds what is compared, `side_by_side.py` how. The project itself imports nothing of this.
"""
