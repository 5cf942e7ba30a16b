"""Think only when something happens: which pictures are encoded, and which need not be (docs/economy.md)."""
