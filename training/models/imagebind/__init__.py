"""ImageBind's vision, audio and text encoders in PyTorch."""
