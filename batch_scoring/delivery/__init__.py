"""What leaves the house after a day is scored: decisions, exports, the page of a day. No Dagster.

`decisions` says what is done about each row, `exports` carries rows to files, PostgreSQL and Redis. The assets that
call them are in `defs`, the checks of decisions in `monitoring`.
"""
