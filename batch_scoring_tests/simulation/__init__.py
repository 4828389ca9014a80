"""A seeded simulation of the publication protocol, and what happens to it with any one of its rules taken out."""
