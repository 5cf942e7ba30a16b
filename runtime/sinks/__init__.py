"""Where news goes: a terminal, plain lines, a JSONL file."""
