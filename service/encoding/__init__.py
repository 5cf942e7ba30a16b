"""Encoding: one child process that holds the backend, shared by all cameras."""
