"""Which graph and which order are fast on a network."""
