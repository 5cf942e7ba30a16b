"""The PyTorch backend: the reference that every export is compared with."""
