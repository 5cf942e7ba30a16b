"""The store: what happened, what was lost, and what has still to be delivered, in one SQLite file."""
