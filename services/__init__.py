"""The platform: one folder per level of the tree, and the tree itself."""
