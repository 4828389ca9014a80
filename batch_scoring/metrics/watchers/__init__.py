"""What watchers outside need to understand the metrics: alert rules, a dashboard, CloudWatch alarms.

Start reading at `alert_rules.py`. `deployment.py` writes all of it to `deploy/monitoring/`, where it is installed from;
none of it is imported when days are scored or metrics are read.
"""
