"""Trial of encoders that compute fewer tokens: how near they stay to the full ones, and how fast they are."""
