"""Tries phrases for a vocabulary on labelled clips."""
