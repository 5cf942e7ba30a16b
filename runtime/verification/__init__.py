"""Whether an engine computes what PyTorch computes: how that is compared, what is required, and what was found."""
