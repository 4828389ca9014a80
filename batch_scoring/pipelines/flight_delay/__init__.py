"""New York departures of 2013: the probability that a flight arrives more than 15 minutes late."""
