"""Cameras of a virtual site: the demo's clip as network cameras send it, without end."""
