"""The synthetic world of the demo: clips, and encoders trained on them."""
