"""What is measured beside time: memory, energy, arithmetic rates."""
