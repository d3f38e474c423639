"""The workload monitor: what the host and its machines use, sampled into the database."""
