"""A model that sees and hears, behind a chat endpoint: ask it about clips and read its answers."""
