"""The names that are searched for: shown, added and removed."""
