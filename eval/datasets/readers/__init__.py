"""Readers of other labelled data sets than OV-AVEBench, from the annotation files that were published with them."""
