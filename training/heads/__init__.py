"""Temporal heads."""
