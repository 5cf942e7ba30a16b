"""Whether two backends or precisions decide alike, on clips and recordings."""
