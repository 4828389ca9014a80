"""The process itself: parallel maps, locks, signals, progress, timeouts, garbage collection.

Knows no pipeline and no storage.
"""
