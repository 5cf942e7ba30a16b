"""From media to cached embeddings: decoding, encoding and sharding."""
