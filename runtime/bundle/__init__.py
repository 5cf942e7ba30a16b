"""The bundle on disk: manifest, graphs, vocabulary, hashes and signatures."""
