"""torch: the ImageBind encoders and the temporal head."""
