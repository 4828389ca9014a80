"""Proof that what the functions of the pipeline make of a row depends on that row alone."""
