"""Which pictures of each camera are encoded, and what that saves (docs/economy.md)."""
