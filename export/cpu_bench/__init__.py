"""The frontier of accuracy and speed over the precisions of a CPU."""
