"""Data sets: annotations, media, cached embeddings, and how clips are encoded."""
