"""Side by side with others: `scoring` (engine), `load` (code location), `materialize` (a small day), `day`, `adhoc`.

`peers.py` holds what is compared, `side_by_side.py` how. The project itself imports nothing of this.
"""
