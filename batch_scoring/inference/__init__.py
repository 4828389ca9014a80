"""From record batches to scores: the model bundle, the network, the scorer, the registry of versions.

Start reading at `scorer.py`, then `bundle.py`. Knows nothing of landing files, days or Dagster. torch is imported
nowhere else, but for doctor's question whether there is a GPU.
"""
