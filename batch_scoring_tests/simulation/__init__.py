"""A seeded simulation of the publication protocol, with all of its rules or with any one of them disabled."""
