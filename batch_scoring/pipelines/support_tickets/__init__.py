"""Support tickets: what customers write to a web shop, in two languages, and the team that each ticket goes to."""
