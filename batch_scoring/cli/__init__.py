"""The command `batch-scoring`: one module or package a subcommand.

Start reading at `main.py`. What the commands do lies below: this package reads arguments, asks, prints and decides
exit codes.
"""
