"""The process: parallel maps, locks, signals, progress, timeouts, garbage collection.

Nothing here knows a pipeline or a storage.
"""
