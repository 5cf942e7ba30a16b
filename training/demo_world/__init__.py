"""The made-up world of the demo: its pictures, sounds, films and encoders."""
