"""Recordings and streams, read with FFmpeg through PyAV."""
