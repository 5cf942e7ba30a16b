"""From media to cached embeddings: decoding, encoding, sharding."""
