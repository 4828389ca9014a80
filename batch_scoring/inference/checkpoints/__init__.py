"""Weights from elsewhere, turned into bundles; nothing in their files is ever run.

Start reading in `convert.py`. `readers.py` recognises a file; `entries.py` finds the network's weights in it. Scoring
never comes here: it reads bundles.
"""
