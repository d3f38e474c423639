"""The network level: the host's links, and one bridge of the node's own for its guests."""
