"""novacronctl: what an operator types, and what the node's answers look like on a screen."""
