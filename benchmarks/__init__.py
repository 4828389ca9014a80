"""Side by side with others: `scoring` (the engine), `load` (the code location), `day` (a whole day), `adhoc` (a file scored from a
shell); each a command.

`peers.py` holds what is compared, `side_by_side.py` how. The project itself imports nothing of this.
"""
