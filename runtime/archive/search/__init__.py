"""Searches an archive: seconds are ranked by bits, then by vectors, and the best are judged by the rules."""
