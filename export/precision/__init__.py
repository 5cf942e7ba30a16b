"""Graphs in reduced precision: half, 8 and 16 bits, static and dynamic."""
