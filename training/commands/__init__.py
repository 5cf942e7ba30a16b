"""Commands that train: `ovavel train …`."""
