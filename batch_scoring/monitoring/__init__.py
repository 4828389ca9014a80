"""What is found about a day: checks, drift, the monthly report.

Start reading at `checks/`. Who is told stands in `operations/alerting`.
"""
