"""What reports share: pages, charts, tables, colours, and how names and numbers are written."""
