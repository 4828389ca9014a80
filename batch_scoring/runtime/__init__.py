"""Process-level support: parallel maps, locks, signals, progress, timeouts, garbage collection.

Nothing here knows about pipelines or storage.
"""
