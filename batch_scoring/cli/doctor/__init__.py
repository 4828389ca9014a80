"""`batch-scoring doctor`: find what is misconfigured before it makes a run fail.

A probe is a small function that examines one thing and yields findings; `all_probes.py` lists them all. To add one,
write it into the module of its subject with the decorator `probe` and add it to the list. Probes change nothing; a file
that they must write for a moment is removed again.
"""
