"""The network in memory: the code and the weights it is built from, packed layers, copies for concurrent threads."""
