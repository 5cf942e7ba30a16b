"""The command `ovavel serve`."""
