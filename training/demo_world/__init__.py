"""The synthetic world of the demo: pictures, sounds, films, and encoders trained on them."""
