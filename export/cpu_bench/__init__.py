"""Accuracy versus speed of every precision on a CPU."""
