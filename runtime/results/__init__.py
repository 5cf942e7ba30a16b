"""What `ovavel localize` writes: JSON, CSV, subtitles, labels, a timeline picture and a page."""
