"""The matrix of backends and precisions on a GPU."""
