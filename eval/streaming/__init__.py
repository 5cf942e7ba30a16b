"""Accuracy versus lag: what a decision gains from waiting."""
