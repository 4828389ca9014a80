"""Exports: each published version of a day arrives in a sink exactly once, and never an older one over a newer one.

Start reading at `sink.py`, which has the protocol; there is one module per kind of sink.
"""
