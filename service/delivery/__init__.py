"""From the outbox to those outside: rules, retries, and one sender for each kind of sink."""
