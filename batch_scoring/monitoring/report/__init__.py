"""A month of a pipeline on one HTML page.

Start reading at `page.py`.
"""
