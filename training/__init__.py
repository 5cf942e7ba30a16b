"""PyTorch: the encoders, the temporal heads, cached embeddings, fine-tuning, the demo world."""
