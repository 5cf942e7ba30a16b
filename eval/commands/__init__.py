"""Commands that measure, and the demo."""
