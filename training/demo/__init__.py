"""The demo world: a small made-up world of sounding things, and a model trained in it from scratch."""
