"""What the outside may know of a node: Prometheus metrics and the health endpoints."""
