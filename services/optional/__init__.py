"""Parts that a node can do without."""
