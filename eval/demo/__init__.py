"""The demo: a small trained model, a clip of its synthetic world, and its report."""
