"""One run of a camera: what decides in it, when its seconds are, and what is kept of them."""
