"""The findings of the asset checks, one module per asset: from a day's figures, without reading its rows again.

Start reading at `input_checks.py`. Drift has a package of its own.
"""
