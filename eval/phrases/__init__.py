"""Trial of phrases for a vocabulary on recordings."""
