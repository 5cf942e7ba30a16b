"""From segments to the store: each camera's decisions, on the wall clock, every second accounted for."""
