"""The monitoring service: many cameras, one encoder, a store that loses nothing, and a page."""
