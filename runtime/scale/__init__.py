"""Many recordings, on one machine or on many: shards, records of what is done, a Ray cluster, and a report."""
