"""Archives: how fast they are searched."""
