"""Alerts: messages about runs, sensors and days, each sent once, through an outbox to the channels.

Start reading at `collector.py`.
"""
