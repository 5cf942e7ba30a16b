"""A trained model of a small made-up world, a clip of that world, and what `ovavel demo` does with both."""
