"""Whether two backends or precisions make the same decisions, on clips and recordings."""
