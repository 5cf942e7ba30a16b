"""What keeps a store sound: recovery at the start, copies, and what must hold."""
