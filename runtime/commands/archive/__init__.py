"""Commands of the archive: search it, decide on it again, check it."""
