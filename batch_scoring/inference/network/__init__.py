"""The network in memory: its weights, its packed layers, its copies for concurrent threads."""
