"""Who may call what in a tree: policy, identities, and what is recorded of it."""
