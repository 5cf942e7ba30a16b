"""Graphs in other precisions: half, quantized, static."""
