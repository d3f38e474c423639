"""The policy file: who may call what in a node, as people write it."""
