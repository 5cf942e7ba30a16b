"""CLIP: encoders of frames and of texts with a common space (docs/method.md, CLIP and CLAP)."""
