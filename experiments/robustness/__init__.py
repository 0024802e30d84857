"""Test accuracy by mixer and attack, and by fault of the network."""
