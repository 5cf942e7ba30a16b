"""ImageBind's encoders in PyTorch, their tokenizer and checkpoints."""
