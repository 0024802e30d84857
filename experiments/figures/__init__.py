"""The paper's experiments, and what it leaves for later, in one command."""
