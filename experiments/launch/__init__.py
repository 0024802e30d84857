"""The command line, and several processes."""
