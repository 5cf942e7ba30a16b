"""Scores of a bundle on OV-AVEBench: metrics, protocols and the report."""
