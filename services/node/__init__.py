"""The node as a whole: what `novacron run` starts, and what it shows while it does."""
