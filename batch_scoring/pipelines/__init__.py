"""The deployment's pipelines: one folder each (pipeline.yaml, schema.py, network.py, train.py)."""
