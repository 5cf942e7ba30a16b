"""Parity: whether two backends or precisions agree on clips and recordings."""
