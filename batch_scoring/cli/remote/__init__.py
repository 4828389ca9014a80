"""`batch-scoring submit`, `status` and `wait`: days of a remote deployment, over its GraphQL interface.

Start reading at `actions.py`; `command.py` reads the arguments.
"""
