"""What economy saves, and whether it decides the same: long streams with and without it."""
