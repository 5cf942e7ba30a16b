"""The pure steps between source and sink: no clock, no I/O."""
