"""The bundle on disk: manifest, graphs, vocabulary, and proof that what is loaded is what was hashed."""
