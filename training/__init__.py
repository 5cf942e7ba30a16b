"""The PyTorch side: encoders, temporal heads, cached embeddings, fine-tuning and the demo world."""
