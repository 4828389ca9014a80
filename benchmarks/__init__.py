"""Comparative benchmarks: `engine`, `load` (code location), `materialize` (a small day), `day`, `adhoc` and others.

`peers.py` defines what is compared, `side_by_side.py` how it is measured. The project itself imports none of this.
"""
