"""The pure boxes between source and sink: no clock, no threads of their own, no I/O."""
