"""The HTTP gateway: versioned endpoints over what the tree knows."""
