"""The demo's synthetic world: what is seen and heard in it, in clips and in days of a fixed camera."""
