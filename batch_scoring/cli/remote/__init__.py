"""`batch-scoring submit`, `status` and `wait`: days of a deployment elsewhere, over its GraphQL interface.

Start reading at `commands.py`.
"""
