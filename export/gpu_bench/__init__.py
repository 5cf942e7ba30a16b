"""Benchmark of every backend and precision on a GPU."""
