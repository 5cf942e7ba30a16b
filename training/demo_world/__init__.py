"""The synthetic world of the demo: pictures, sounds, clips, and encoders trained on them."""
