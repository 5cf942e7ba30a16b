"""What other settings of a camera would have found, before they are saved: the page, and what it asks."""
