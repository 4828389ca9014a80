"""The page of a day, for the people who act on its decisions: one HTML file that needs no network.

`facts.py` gathers what it shows from the state and the tables, `page.py` draws it.
"""
