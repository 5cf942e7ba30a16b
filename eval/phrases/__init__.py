"""Trying out the phrases of a vocabulary on clips."""
