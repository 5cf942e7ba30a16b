"""Presentation of results: pages, charts, tables, colours, consoles, escaping and redaction."""
