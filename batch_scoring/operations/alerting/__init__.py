"""Who is told what, once: messages about runs and days, an outbox, channels.

Start reading at `collector.py`.
"""
