"""The PyTorch backend: the reference for every export."""
