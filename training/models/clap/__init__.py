"""LAION-CLAP: encoders of sounds and of texts with a common space (docs/method.md, CLIP and CLAP)."""
