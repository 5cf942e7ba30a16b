"""Every backend and precision on a GPU, a row each."""
