"""Proof that a backend computes what PyTorch computes: comparisons, requirements, gates."""
