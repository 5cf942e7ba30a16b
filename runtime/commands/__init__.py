"""The `ovavel` sub-commands that run without torch: one frozen dataclass each, with a `run` method."""
