"""A service with all that is around it, faults for each of these, and what must hold after each."""
