"""Commands that run without PyTorch."""
