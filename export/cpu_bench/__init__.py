"""Accuracy against speed for every precision on a CPU."""
