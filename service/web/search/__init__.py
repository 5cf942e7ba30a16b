"""Search of the archive: the page, and what it asks."""
