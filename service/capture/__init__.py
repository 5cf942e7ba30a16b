"""Capture: one child process a camera, from its source to prepared windows."""
