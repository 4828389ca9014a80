"""The command `batch-scoring`: one module or package a subcommand.

Start reading at `main.py`. The work is done in the packages below: this one parses arguments, prompts, prints and
decides exit codes.
"""
