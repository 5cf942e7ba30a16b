"""The demo: a bundle and a clip of the demo world, played through the live pipeline."""
