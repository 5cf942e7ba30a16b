"""Encoders in PyTorch, ImageBind, CLIP and CLAP; their tokenizers and weights."""
