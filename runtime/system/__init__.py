"""The machine and its processes: files, signals, progress, hardware, timing."""
