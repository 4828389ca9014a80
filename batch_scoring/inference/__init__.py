"""From record batches to scores: the model bundle, the network, the scorer.

Start reading at `scorer.py`, then `bundle.py`. Knows nothing of files that land, of days or of Dagster. torch is
imported nowhere else.
"""
