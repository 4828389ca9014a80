"""Exports to PostgreSQL.

`sink.py` replaces a day in a table, `columns.py` compares its columns with the rows', `connection.py` connects.
"""
