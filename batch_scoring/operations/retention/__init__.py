"""Retention: which files are no longer needed (`plan`), and their deletion (`vacuum`)."""
