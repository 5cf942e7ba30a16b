"""Graphs in reduced precision: half precision, and 8 and 16 bits, static and dynamic."""
