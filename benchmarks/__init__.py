"""Side by side with peers: the engine, the code location, a whole day. Each module is a command; none is imported."""
