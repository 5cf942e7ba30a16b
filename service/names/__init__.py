"""The names that are searched for, changed while the service runs."""
