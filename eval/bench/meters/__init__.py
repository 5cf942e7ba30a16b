"""Measurements besides time: memory, energy, arithmetic rates."""
