"""How results are shown: pages, charts, tables, colours, consoles, escaping and redaction."""
