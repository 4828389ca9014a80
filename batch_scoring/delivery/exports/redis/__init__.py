"""Exports to Redis.

`sink.py` switches to a version, `entries.py` makes keys and values of rows, `server.py` connects and writes in bulk.
"""
