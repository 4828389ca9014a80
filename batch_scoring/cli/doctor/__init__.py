"""`batch-scoring doctor`: says what is misconfigured before the night does.

A probe is a small function that looks at one thing and yields findings; `command.py` lists them all. To add one, write
it into the module of its subject with the decorator `probe` and add it to the list. Probes change nothing; what they
must write for a moment they take away again.
"""
