"""The archive of a site: written while it is watched, kept for so long, and searched from the page."""
