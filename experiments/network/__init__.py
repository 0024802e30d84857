"""Accuracy against simulated time on several networks."""
